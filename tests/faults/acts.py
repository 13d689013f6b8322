"""Acts of the fault bench: each does one kind of fault to a world, and returns how to undo it.

One function per act, under the name that `scenarios.py` uses.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.faults.scenarios import Strike

if TYPE_CHECKING:
    from tests.faults.world import World


def _nothing() -> None:
    """Undo of a fault that is over immediately."""


class Done(NamedTuple):
    """A fault that was done.

    `met`: the connections it met, as listed by the proxy, or the process; None for all.
    """

    about: str
    undo: Callable[[], None] = _nothing
    met: list[dict[str, Any]] | None = None


def _pid(world: World, strike: Strike) -> int | None:
    pids = world.pids(strike.fault.options["role"])
    return pids[int(strike.pick * len(pids))] if pids else None


def kill(world: World, strike: Strike) -> Done:
    """Kill a process with SIGKILL."""
    pid = _pid(world, strike)
    if pid is None:
        return Done("none was up", met=[])
    os.kill(pid, signal.SIGKILL)
    return Done(f"pid {pid}", met=[{"pid": pid}])


def stop(world: World, strike: Strike) -> Done:
    """Stop a process with SIGSTOP until undone."""
    pid = _pid(world, strike)
    if pid is None:
        return Done("none was up", met=[])
    os.kill(pid, signal.SIGSTOP)

    def resume() -> None:
        with contextlib.suppress(ProcessLookupError):  # it died while stopped
            os.kill(pid, signal.SIGCONT)

    return Done(f"pid {pid}", resume, [{"pid": pid}])


def reload(world: World, strike: Strike) -> Done:
    """Make the supervisor reload."""
    os.kill(world.gateway.pids()[0], signal.SIGHUP)
    return Done("the supervisor")


def store_killed(world: World, strike: Strike) -> Done:
    """Kill the database."""
    world.mariadb.kill()
    return Done("mariadbd", world.bring_store_back)


def store_frozen(world: World, strike: Strike) -> Done:
    """Stop the database's process; its connections stay open."""
    world.mariadb.freeze()
    return Done("mariadbd", world.bring_store_back)


def store_locked(world: World, strike: Strike) -> Done:
    """Lock the tables by another connection."""
    connection = world.connect_to_store()
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLES calls WRITE, turns WRITE, events WRITE, recordings WRITE, call_quality WRITE")

    def unlock() -> None:
        connection.close()
        world.bring_store_back()

    return Done("all tables", unlock)


def refuse(world: World, strike: Strike) -> Done:
    """Reset new connections of a link, and with `reset` the open ones."""
    link = strike.fault.link
    world.proxy.ask("refuse", link=link, on=True)
    met = world.proxy.ask("reset", link=link) if strike.fault.options.get("reset") else []
    return Done(f"and {len(met)} open connections", _clearing(world, strike))


def reset(world: World, strike: Strike) -> Done:
    """Reset open connections of a link."""
    options = dict(strike.fault.options)
    pick = strike.pick if options.pop("one", False) else None
    met = world.proxy.ask("reset", link=strike.fault.link, pick=pick, **options)
    return Done(_numbers(met), met=met)


def weather(world: World, strike: Strike) -> Done:
    """Change the weather of a link."""
    met = world.proxy.ask("weather", link=strike.fault.link, **strike.fault.options)
    return Done(f"{len(met)} open connections", _clearing(world, strike))


def weather_of_one(world: World, strike: Strike) -> Done:
    """Change the weather of one connection."""
    met = world.proxy.ask("weather", link=strike.fault.link, pick=strike.pick, alone=True, **strike.fault.options)
    return Done(_numbers(met), _clearing(world, strike), met)


def _numbers(met: list[dict[str, Any]]) -> str:
    return f"connections {[one['number'] for one in met]}"


def _clearing(world: World, strike: Strike) -> Callable[[], None]:
    def clear() -> None:
        world.proxy.ask("clear", link=strike.fault.link)
        if strike.fault.link == "store":
            world.bring_store_back()

    return clear


def rest_fails(world: World, strike: Strike) -> Done:
    """Let Twilio's REST API fail. A timeout with effect, and 21220, apply to starts only."""
    kind = strike.fault.options["kind"]
    for operation in ("start",) if kind in ("timeout_with_effect", "21220") else ("start", "list", "fetch"):
        world.twilio.rest.fail(kind, 10_000, operation=operation)  # type: ignore[arg-type]
    return Done(kind, world.twilio.rest.heal)


def ai_fails(world: World, strike: Strike) -> Done:
    """Let the AI's next sessions fail."""
    world.ai.ask("fail", **strike.fault.options)

    def well() -> None:
        world.ai.ask("well")

    return Done(str(strike.fault.options["kind"]), well)


ACTS: Final[dict[str, Callable[[World, Strike], Done]]] = {
    act.__name__: act
    for act in (
        kill,
        stop,
        reload,
        store_killed,
        store_frozen,
        store_locked,
        refuse,
        reset,
        weather,
        weather_of_one,
        rest_fails,
        ai_fails,
    )
}
