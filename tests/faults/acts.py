"""How each fault is done to a world, and how it is taken back.

One function an act, by the name `scenarios.py` calls it. It returns what it met, in words, and what ends it. Never judges.
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
    """Some faults are over at once."""


class Done(NamedTuple):
    """A fault that was done. `met`: the connections it met, as the proxy knows them, or the process; None where it met all."""

    about: str
    undo: Callable[[], None] = _nothing
    met: list[dict[str, Any]] | None = None


def _pid(world: World, strike: Strike) -> int | None:
    pids = world.pids(strike.fault.options["role"])
    return pids[int(strike.pick * len(pids))] if pids else None


def kill(world: World, strike: Strike) -> Done:
    """Kill -9 of a process."""
    pid = _pid(world, strike)
    if pid is None:
        return Done("none was up", met=[])
    os.kill(pid, signal.SIGKILL)
    return Done(f"pid {pid}", met=[{"pid": pid}])


def stop(world: World, strike: Strike) -> Done:
    """A process that does not run for a while."""
    pid = _pid(world, strike)
    if pid is None:
        return Done("none was up", met=[])
    os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        with contextlib.suppress(ProcessLookupError):  # it was ended while it stood
            os.kill(pid, signal.SIGCONT)

    return Done(f"pid {pid}", go_on, [{"pid": pid}])


def reload(world: World, strike: Strike) -> Done:
    """The supervisor rolls its workers over."""
    os.kill(world.gateway.pids()[0], signal.SIGHUP)
    return Done("the supervisor")


def store_killed(world: World, strike: Strike) -> Done:
    """The database's process is gone."""
    world.mariadb.kill()
    return Done("mariadbd", world.bring_store_back)


def store_frozen(world: World, strike: Strike) -> Done:
    """The database answers nothing, its connections stand."""
    world.mariadb.freeze()
    return Done("mariadbd", world.bring_store_back)


def store_locked(world: World, strike: Strike) -> Done:
    """Somebody holds the tables."""
    connection = world.connect_to_store()
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLES calls WRITE, turns WRITE, events WRITE, recordings WRITE, call_quality WRITE")

    def let_go() -> None:
        connection.close()
        world.bring_store_back()

    return Done("all tables", let_go)


def refuse(world: World, strike: Strike) -> Done:
    """Whoever connects is reset."""
    link = strike.fault.link
    world.proxy.ask("refuse", link=link, on=True)
    met = world.proxy.ask("reset", link=link) if strike.fault.options.get("reset") else []
    return Done(f"and {len(met)} connections that stood", _clearing(world, strike))


def reset(world: World, strike: Strike) -> Done:
    """Connections break."""
    options = dict(strike.fault.options)
    pick = strike.pick if options.pop("one", False) else None
    met = world.proxy.ask("reset", link=strike.fault.link, pick=pick, **options)
    return Done(_numbers(met), met=met)


def weather(world: World, strike: Strike) -> Done:
    """A link's weather."""
    met = world.proxy.ask("weather", link=strike.fault.link, **strike.fault.options)
    return Done(f"{len(met)} connections that stood", _clearing(world, strike))


def weather_of_one(world: World, strike: Strike) -> Done:
    """One connection's weather."""
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
    """Twilio answers, but not as it should. A start that is done and not answered is for starts alone."""
    kind = strike.fault.options["kind"]
    for operation in ("start",) if kind in ("timeout_with_effect", "21220") else ("start", "list", "fetch"):
        world.twilio.rest.fail(kind, 10_000, operation=operation)  # type: ignore[arg-type]
    return Done(kind, world.twilio.rest.heal)


def ai_fails(world: World, strike: Strike) -> Done:
    """The AI's next sessions are broken ones."""
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
