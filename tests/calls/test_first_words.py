"""First words in whole calls: recorded greetings, given words, a caller who begins, warm AI legs. One gateway for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gevent
import pytest

import gw.config
import gw.media.ai.warm
from gw.call.audio.playout import RECORDED
from gw.call.conversation import CUT
from gw.config import Agent, Greeting, Turns
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.sound import BYTES_PER_MS
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.conversations.scripts import voice
from tests.calls.hearing import WORD, not_run_ms
from tests.calls.held import LISTENS, requested
from tests.calls.shared import Outcome, padded, run_world
from tests.gw.protocol.test_wav import wav
from tests.timing import scaled

TEXT: Final = "Hello, this is Acme. How can I help you today?"
GREETING_S: Final = 2.4
ANSWER_S: Final = 1.0
SPOKEN: Final = voice(9, 0, GREETING_S)
SPEAKS: Final = Step("say", "quiet", 0.4, audio=WORD)
INTERRUPTS: Final = Step("say", "heard", 0.8, audio=WORD)
#: Time from the webhook to the stream's start, for a leg that is warm by then.
BEFORE_START_S: Final = 0.5
#: Bound on an unused warm leg in this run.
UNUSED_S: Final = 1.0


@dataclass(frozen=True)
class Case:
    """One call: its agent, its caller, and the AI's part."""

    agent: dict[str, Any]
    steps: tuple[Step, ...] = (SPEAKS, LISTENS)
    script: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)


def recorded(path: Path) -> Greeting:
    return Greeting(file=str(path), text=TEXT)


def cases(path: Path) -> dict[str, Case]:
    file = {"greeting": recorded(path)}
    return {
        "recorded": Case(file, script={"ready_delay_s": 1.0}),
        "interrupted": Case(file, (INTERRUPTS, LISTENS)),
        "protected": Case({**file, "turns": Turns(protect_greeting_ms=60_000)}, (INTERRUPTS, LISTENS)),
        "resumed": Case(file, (Step("reset", "heard", 0.6, lasts_s=0.2), LISTENS)),
        "says": Case({"greeting": Greeting(say=TEXT)}, script={"hang_up_after": 1}),
        "prompt": Case({"greeting": Greeting(prompt="Greet them.")}),
        "waits": Case({"greeting": ""}, (Step("say", "after", 0.6, audio=WORD), LISTENS)),
        "warm": Case({"warm": True}, plan={"start_after_s": BEFORE_START_S}),
        "warm_early": Case({"warm": True}, script={"ready_delay_s": 1.0}),
        "warm_refused": Case({"warm": True}, script={"fault": "refuse_500"}, plan={"start_after_s": BEFORE_START_S}),
    }


@dataclass(frozen=True)
class Held:
    """A call that was held."""

    call: TwinCall
    sessions: list[AiLedger]
    row: dict[str, Any]

    @property
    def slack_s(self) -> float:
        return 0.25 + not_run_ms(self.call) / 1000

    def turns(self, role: str) -> list[dict[str, Any]]:
        return [turn for turn in self.row["turns"] if turn["role"] == role]


@dataclass(frozen=True)
class Run:
    """All calls, and the gateway's metrics."""

    held: dict[str, Held]
    metrics: dict[str, float]
    unused: AiLedger  # of a webhook without a stream

    def __getitem__(self, name: str) -> Held:
        return self.held[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Run:
    folder = tmp_path_factory.mktemp("first_words")
    path = folder / "hello.wav"
    path.write_bytes(wav(SPOKEN, code=7, bits=8))
    all_cases = cases(path)
    opened: dict[str, int] = {}

    def agents(ai: AiTwin) -> dict[str, Agent]:
        made = {name: Agent(provider="openai", base_url=f"{ai.url}/{name}", **case.agent) for name, case in all_cases.items()}
        return {**made, "absent": Agent(provider="openai", base_url=f"{ai.url}/absent", warm=True)}

    def script_of(index: int, url: str) -> AiScript:
        name = url.rsplit("/", 1)[-1]
        opened[name] = opened.get(name, 0) + 1
        changes = dict(all_cases[name].script) if name in all_cases else {}
        if opened[name] > 1:
            changes.pop("fault", None)
        return AiScript(greeting=voice(1, 0, GREETING_S), answers=(voice(1, 1, ANSWER_S),), **changes)

    def body(world: World, outcome: Outcome) -> None:
        for name, case in all_cases.items():
            plan = CallPlan(agent=name, steps=case.steps, **{"hang_up": False, "max_s": scaled(30.0), **case.plan})
            outcome.calls[name] = world.twilio.place(plan)
            gevent.sleep(0.05)
        announced = world.twilio.place(
            CallPlan(prelude=lambda call: call.hang_up(), hang_up=False), voice_url=_url(world, "absent")
        )
        for name, call in outcome.calls.items():
            assert call.wait(scaled(40.0)), f"{name} did not end"
            world.gateway.ended(call.call_sid)
        assert announced.wait(scaled(10.0))
        absent = next(one for one in world.ai.sessions if one.path.endswith("/absent"))
        world.gateway.until(lambda: absent.is_over, "the unused leg is closed")
        outcome.keep(world)
        outcome.seen.update(sessions=world.ai.sessions, absent=absent)

    before_s = gw.media.ai.warm.UNUSED_S
    gw.media.ai.warm.UNUSED_S = UNUSED_S + BEFORE_START_S  # type: ignore[misc]
    try:
        outcome = run_world(folder, shared_store, script_of, body, agents=agents, media=gw.config.Media(holding_sound=False))
    finally:
        gw.media.ai.warm.UNUSED_S = before_s  # type: ignore[misc]
    held = {}
    for name, call in outcome.calls.items():
        row = outcome.rows[name]
        assert row is not None
        sessions = [one for one in outcome.seen["sessions"] if one.path.endswith(f"/{name}")]
        held[name] = Held(call, sessions, row)
    outcome.check_nothing_left()
    return Run(held, outcome.metrics, outcome.seen["absent"])


def _url(world: World, agent: str) -> str:
    return world.twilio.webhooks.absolute(f"/twilio/voice?agent={agent}")


# -- a recorded greeting --------------------------------------------------------------------------------------------------


def test_a_recorded_greeting_is_heard_before_the_ai_is_connected(run: Run) -> None:
    one = run["recorded"]
    (session,) = one.sessions
    assert one.call.received_audio[: len(SPOKEN)] == SPOKEN
    assert session.ready_s is not None
    started_s, first_s = one.call.streams_s[0], one.call.played[0][0]
    assert first_s - started_s < 0.02 + one.slack_s
    assert first_s < session.ready_s
    assert one.row["quality"]["first_audio_ms"] < 20 + 1000 * one.slack_s


def test_the_ai_has_its_text_before_it_hears_the_caller_and_does_not_greet(run: Run) -> None:
    (session,) = run["recorded"].sessions
    greeting = session.items[0]
    assert (greeting.role, greeting.text, greeting.item_id) == ("assistant", TEXT, "t1")
    assert session.first_append_s is not None
    assert greeting.at_s <= session.first_append_s
    assert requested(session) == []
    (answer,) = session.responses
    assert not answer.asked
    assert (session.deletions, session.violations) == ([], [])


def test_it_is_the_agents_first_turn_and_starts_the_recording(run: Run) -> None:
    one = run["recorded"]
    first, second = one.turns("agent")
    length_ms = len(SPOKEN) // BYTES_PER_MS
    assert (first["text"], first["item_id"], first["interrupted"], first["heard_ms"]) == (TEXT, RECORDED, False, length_ms)
    assert second["heard_ms"] == ANSWER_S * 1000
    assert one.row["recording"]["state"] == "completed"
    assert 0.0 <= one.row["first_audio_at"] - one.row["answered_at"] < 0.02 + one.slack_s


def test_an_interrupted_greeting_is_restated_with_the_words_heard(run: Run) -> None:
    one = run["interrupted"]
    (session,) = one.sessions
    (turn,) = [turn for turn in one.turns("agent") if turn["item_id"] == RECORDED]
    assert turn["interrupted"]
    assert 800 < turn["heard_ms"] < GREETING_S * 1000
    assert [deletion.item_id for deletion in session.deletions] == ["t1"]
    (again,) = [item for item in session.items if item.item_id == "t1c"]
    words = again.text.removesuffix(CUT)
    share = turn["heard_ms"] / (GREETING_S * 1000)
    assert again.text.endswith(CUT)
    assert TEXT.startswith(words)
    assert len(words) <= share * len(TEXT) < len(words) + len(" today?") + 1
    assert session.truncates == []
    assert one.call.clears


def test_a_protected_greeting_is_heard_whole_and_the_caller_answered(run: Run) -> None:
    one = run["protected"]
    assert one.call.received_audio == SPOKEN + padded(voice(1, 1, ANSWER_S))
    assert one.call.clears == []


def test_a_resumed_call_is_not_greeted_again(run: Run) -> None:
    one = run["resumed"]
    assert len(one.call.streams_s) == 2
    assert [turn["item_id"] for turn in one.turns("agent")].count(RECORDED) == 1
    resumed = one.sessions[1]
    assert resumed.items[0].role == "assistant"
    assert TEXT.startswith(resumed.items[0].text.removesuffix(CUT))
    assert len(requested(resumed)) == 1, "the return is announced"


# -- the agent's own ------------------------------------------------------------------------------------------------------


def test_given_words_are_requested_without_tools(run: Run) -> None:
    """The script would hang up in its first response. The persona stays."""
    one = run["says"]
    (session,) = one.sessions
    (asked,) = requested(session)
    assert asked.endswith(f": {TEXT}")
    assert [(create.with_tools, create.instructions) for create in session.creates] == [(False, "")]
    assert one.row["reason"] == "caller_hangup"


def test_a_prompt_in_a_table_is_a_prompt(run: Run) -> None:
    (session,) = run["prompt"].sessions
    assert requested(session) == ["Greet them."]
    assert [create.with_tools for create in session.creates] == [True]


def test_without_a_greeting_the_caller_begins(run: Run) -> None:
    (session,) = run["waits"].sessions
    assert requested(session) == []
    assert [response.asked for response in session.responses] == [False]


# -- warm legs ------------------------------------------------------------------------------------------------------------


def test_a_warm_session_is_ready_before_the_stream(run: Run) -> None:
    one = run["warm"]
    (session,) = one.sessions
    assert session.ready_s is not None
    assert session.ready_s < one.call.streams_s[0]
    assert requested(session) == [Agent().greeting]
    assert session.creates[0].at_s - one.call.streams_s[0] < 0.1 + one.slack_s
    assert one.call.received_audio == padded(voice(1, 0, GREETING_S)) + padded(voice(1, 1, ANSWER_S))


def test_a_session_that_is_not_ready_when_the_stream_comes_is_awaited(run: Run) -> None:
    one = run["warm_early"]
    (session,) = one.sessions
    assert session.ready_s is not None
    assert session.ready_s > one.call.streams_s[0]
    assert one.call.received_audio == padded(voice(1, 0, GREETING_S)) + padded(voice(1, 1, ANSWER_S))


def test_a_warm_leg_that_failed_costs_the_call_nothing(run: Run) -> None:
    one = run["warm_refused"]
    (session,) = one.sessions
    assert session.connected_s > one.call.streams_s[0]
    assert one.call.received_audio == padded(voice(1, 0, GREETING_S)) + padded(voice(1, 1, ANSWER_S))


def test_a_warm_leg_without_a_stream_is_closed(run: Run) -> None:
    assert (run.unused.closed_by, run.unused.close_code) == ("peer", 1000)
    assert (run.unused.appends, run.unused.creates) == (0, [])


def test_every_warm_leg_is_counted_once(run: Run) -> None:
    counted = {
        outcome: run.metrics[f'gw_warm_legs_total{{outcome="{outcome}"}}']
        for outcome in ("used", "unused", "failed", "full", "elsewhere")
    }
    assert counted == {"used": 2.0, "unused": 1.0, "failed": 1.0, "full": 0.0, "elsewhere": 0.0}
