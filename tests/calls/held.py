"""Calls held by cases: each case has its own agent, and all are calls on one gateway.

An agent's scripts strike with the faults of its case; the caller's steps follow what the caller hears. What was heard is judged
by the identity of every frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import gevent
from gevent.pool import Pool

import gw.config
from gw.config import Agent
from gw.twin.ai.ledger import AiLedger, SentResponse
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.sound import FRAME_BYTES, PTIME_MS
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.dial import Callee
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.conversations.scripts import voice
from tests.calls.ear import Ear, ear_of
from tests.calls.hearing import not_run_ms
from tests.calls.shared import Line, Outcome, padded, run_world
from tests.timing import scaled

GOODBYE: Final = "Something broke. Goodbye."
WORDS: Final = "One two three four five six seven eight nine ten."
#: Allowance for network and detection on an idle machine.
SLACK_S: Final = 0.25
#: Calls at a time. Both sides of each run in this process.
AT_ONCE: Final = 20
SPREAD_S: Final = 0.05

#: For AIs without a fault: no limit that a busy machine may miss, and no sound in audio that is compared.
NO_SOUND: Final = gw.config.Media(holding_sound=False)
LISTENS: Final = Step("hang_up", "quiet", 1.8, patience_s=12.0)


def says(seconds: float = 1.2, answers_s: float = 1.0, **changes: Any) -> AiScript:
    """Return a script whose greeting and answers have these lengths; `hold_all` puts a voice in."""
    script = AiScript(greeting=bytes(round(seconds * 8000)), answers=(bytes(round(answers_s * 8000)),) * 5, agent_words=(WORDS,))
    return replace(script, **changes)


@dataclass(frozen=True)
class Case:
    """Scripts of the first session and of every later one. More of the plan, and of the agent."""

    first: AiScript = field(default_factory=says)
    then: AiScript = field(default_factory=says)
    steps: tuple[Step, ...] = (LISTENS,)
    agent: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """A call that was held, from all sides."""

    call: TwinCall
    sessions: list[AiLedger]
    ear: Ear
    row: dict[str, Any]
    log: list[Line]  # of all calls

    @property
    def responses(self) -> list[SentResponse]:
        return [response for session in self.sessions for response in session.responses]

    @property
    def slack_s(self) -> float:
        return SLACK_S + not_run_ms(self.call) / 1000

    def is_whole(self, response: SentResponse) -> bool:
        """Return whether the caller heard every frame of a response, once and in sequence. A busy machine may part them."""
        frame = 0
        for span in self.ear.agent:
            if span.item == response.item_id:
                if span.first != frame:
                    return False
                frame += round((span.end_s - span.start_s) * 1000 / PTIME_MS)
        return 0 < frame == len(padded(response.audio)) // FRAME_BYTES

    def last_heard_s(self, response: SentResponse) -> float:
        return max((span.end_s for span in self.ear.agent if span.item == response.item_id), default=0.0)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.row["events"] if event["kind"] == kind]

    def turns(self, role: str) -> list[dict[str, Any]]:
        return [turn for turn in self.row["turns"] if turn["role"] == role]


def requested(session: AiLedger) -> list[str]:
    """Return the system item before each requested response, or an empty text."""
    found, text = [], ""
    for event in session.events:
        if event.kind == "conversation.item.create" and event.body["item"].get("role") == "system":
            text = event.body["item"]["content"][0]["text"]
        elif event.kind == "response.create":
            found.append(text)
            text = ""
    return found


def restated(session: AiLedger) -> list[tuple[str, str]]:
    """Return the conversation that was sent to a session: role and text of each item."""
    return [(item.role, item.text) for item in session.items if item.kind == "message" and item.role != "system"]


def _script(case: Case, session: int) -> AiScript:
    """Return the script of a session, 0 for the first. Every frame of its voice is unique."""
    script = case.then if session else case.first
    lengths = [len(audio) / 8000 for audio in (script.greeting, *script.answers)]
    greeting, *answers = (voice(session, n, seconds) for n, seconds in enumerate(lengths))
    return replace(script, greeting=greeting, answers=tuple(answers))


def _scripts(cases: Mapping[str, Case]) -> Callable[[int, str], AiScript]:
    opened: dict[str, int] = defaultdict(int)

    def next_of(index: int, path: str) -> AiScript:
        name = path.rsplit("/", 1)[-1]
        opened[name] += 1
        return _script(cases[name], opened[name] - 1)

    return next_of


def hold_all(
    folder: Path,
    store: gw.config.Store,
    media: gw.config.Media,
    cases: Mapping[str, Case],
    *,
    head_start_s: Mapping[str, float],
    then: Callable[[World, Outcome], None] = lambda world, outcome: None,
    callees: Mapping[str, Callee] = MappingProxyType({}),
    **sections: Any,
) -> dict[str, Held]:
    """Hold a call for each case.

    `callees`: parties that Twilio dials, by number. `head_start_s`: time before the next call is placed, if more than the usual.
    `then`: what follows the calls, on the same gateway. `sections`: further parts of its configuration.
    """

    def agents(ai: AiTwin) -> dict[str, Agent]:
        return {
            name: Agent(provider="openai", base_url=f"{ai.url}/{name}", goodbye=GOODBYE, **case.agent)
            for name, case in cases.items()
        }

    def place_calls(world: World, outcome: Outcome) -> None:
        world.twilio.callees.update(callees)

        def hold(name: str, case: Case) -> None:
            plan = CallPlan(agent=name, steps=case.steps, **{"hang_up": False, "max_s": scaled(30.0), **case.plan})
            outcome.calls[name] = world.twilio.place(plan)
            assert outcome.calls[name].wait(scaled(45)), f"{name} did not end"

        pool = Pool(AT_ONCE)
        for name, case in sorted(cases.items(), key=lambda one: one[0] not in head_start_s):
            pool.spawn(hold, name, case)
            gevent.sleep(head_start_s.get(name, SPREAD_S))
        pool.join(raise_error=True)
        for call in outcome.calls.values():
            world.gateway.ended(call.call_sid)
        outcome.keep(world)
        outcome.seen["sessions"] = world.ai.sessions
        names = list(outcome.calls)
        then(world, outcome)
        outcome.calls = {name: outcome.calls[name] for name in names}

    outcome = run_world(folder, store, _scripts(cases), place_calls, agents=agents, media=media, **sections)
    held = {}
    for name, call in outcome.calls.items():
        row = outcome.rows[name]
        assert row is not None
        sessions = [one for one in outcome.seen["sessions"] if one.path.endswith(f"/{name}")]
        held[name] = Held(call, sessions, ear_of(call, sessions), row, outcome.log.lines)
    return held
