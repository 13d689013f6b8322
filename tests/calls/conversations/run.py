"""Places conversations on one gateway in this process, and hands back what both twins recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent
from gevent.pool import Pool

from gw.config import Agent, Greeting, Store, Turns
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from tests.calls.conftest import World, open_world
from tests.calls.conversations.laws import Result
from tests.calls.conversations.scripts import Conversation
from tests.calls.ear import ear_of
from tests.calls.hearing import not_run_ms
from tests.gw.protocol.test_wav import wav
from tests.timing import scaled

_SPREAD_S = 0.15  # between the first calls, so that they do not move in step


def hold(
    made: Sequence[Conversation], folder: Path, at_once: int, on_result: Callable[[Result], None] = lambda held: None
) -> list[Result]:
    """Hold conversations, `at_once` of them at a time. Returns their results in the order of their ends."""
    by_path = {one.agent: one for one in made}
    seen: Counter[str] = Counter()
    results: list[Result] = []

    def script(index: int, path: str) -> AiScript:
        agent = path.rsplit("/", 1)[-1]
        seen[agent] += 1
        return by_path[agent].script(seen[agent] - 1)

    def agents(ai: AiTwin) -> dict[str, Agent]:
        return {
            one.agent: Agent(
                provider="openai",
                base_url=f"{ai.url}/{one.agent}",
                greeting=_greeting(one, folder),
                warm=one.warm,
                turns=Turns(interruptions=one.interruptions),
            )
            for one in made
        }

    def one_call(w: World, one: Conversation) -> None:
        held = _hold_one(w, one)
        results.append(held)
        on_result(held)

    folder.mkdir(parents=True, exist_ok=True)
    with open_world(folder / "var", Store(url=f"sqlite:///{folder}/calls.db"), script, agents=agents) as w:
        pool = Pool(at_once)
        for one in made:
            pool.spawn(one_call, w, one)
            gevent.sleep(_SPREAD_S)
        pool.join(raise_error=True)
    return results


def _greeting(made: Conversation, folder: Path) -> str | Greeting:
    """Write a recorded greeting to a file. Returns the agent's greeting."""
    if not made.recorded:
        return Agent().greeting
    path = folder / f"{made.agent}.wav"
    path.write_bytes(wav(made.recorded, code=7, bits=8))
    return Greeting(file=str(path), text="Hello, this is Acme. How can I help you today?")


def _hold_one(w: World, made: Conversation) -> Result:
    call = w.twilio.place(made.plan)
    call.wait(made.plan.max_s + scaled(20.0))
    reason = ""
    with gevent.Timeout(scaled(5.0), False):
        while not reason:
            row = w.gateway.store.call(call.call_sid)
            reason = str(row.reason or "") if row is not None and row.ended_at is not None else ""
            gevent.sleep(0.05)
    sessions = tuple(one for one in w.ai.sessions if one.path.endswith(f"/{made.agent}"))
    return Result(made, call, sessions, ear_of(call, sessions, made.recorded), reason, not_run_ms(call) / 1000)
