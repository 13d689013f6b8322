"""Calls that leave their stream and come back, with the real control: transfers with and without a whisper, and digits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

import gw.config
from gw.config import Transfer
from gw.twin.ai.faults import Call
from gw.twin.ai.ledger import AiLedger
from gw.twin.twilio.dial import Callee, Dialled
from gw.twin.twilio.steps import Step
from tests.calls.hearing import WORD
from tests.calls.held import NO_SOUND, Case, Held, hold_all, restated, says

SUMMARY: Final = "Anna asks about order 12."
ACCEPT: Final = "Press 1 to take the call."
#: Numbers of one party each, so that each case has its own dials.
CALLEES: Final = {
    "+15550000001": Callee(after_s=0.8, keys="1", talks_s=0.4),
    "+15550000002": Callee(ends="busy", after_s=0.8),
    "+15550000003": Callee(after_s=60.0),
    "+15550000004": Callee(after_s=0.8, keys="2"),
    "+15550000005": Callee(after_s=0.8, keys=""),
    "+15550000006": Callee(after_s=0.8, talks_s=0.4),
    "+15550000007": Callee(ends="failed", after_s=0.8),
    "sip:desk@example.com": Callee(after_s=0.8, talks_s=0.2),
    "+15550000009": Callee(after_s=0.8, keys="1", talks_s=0.4),
    "+15550000010": Callee(after_s=60.0),
    "+15550000011": Callee(after_s=0.8),
    "+15550000012": Callee(ends="busy", after_s=0.8),
}
#: The caller hears the greeting, then an answer, and hangs up.
HEARS: Final = Step("say", "quiet", 0.1, patience_s=25.0)
LEAVES: Final = Step("hang_up", "quiet", 1.0, patience_s=25.0)


def transfers(to: str, target: str = "sales", *, whisper: bool = True, words_s: float = 0.6, **changes: Any) -> Case:
    """Return a case whose greeting, of `words_s`, is followed by a transfer to this number."""
    steps, ring_s = changes.pop("steps", (HEARS, LEAVES)), changes.pop("ring_s", 1)
    call = Call("transfer", json.dumps({"target": target, "summary": SUMMARY}))
    script = says(words_s, 0.8, calls={1: (call,)}, **changes)
    agent = {"tools": ("hang_up", "transfer"), "transfer": Transfer(targets={"sales": to}, ring_s=ring_s, whisper=whisper)}
    return Case(script, says(0.6, 0.8), steps=steps, agent=agent)


CASES: Final = {
    "completed": transfers("+15550000001"),
    "busy": transfers("+15550000002"),
    "no-answer": transfers("+15550000003"),
    "declined": transfers("+15550000004"),
    "left": transfers("+15550000005"),
    "cold": transfers("+15550000006", whisper=False),
    "failed": transfers("+15550000007", whisper=False),
    "sip": transfers("sip:desk@example.com"),
    "unknown": transfers("+15550000009", target="nobody", steps=(LEAVES,)),
    "hung_up": transfers("+15550000010", ring_s=60, steps=(HEARS, Step("hang_up", wait_s=4.0))),
    "interrupted": transfers("+15550000011", steps=(Step("say", "heard", 0.2, audio=WORD), LEAVES)),
    # the session ends while the caller hears the words before the transfer
    "session_lost": transfers("+15550000012", words_s=4.0, ends_after_s=2.0),
    "digits": Case(
        says(0.6, 0.8, calls={1: (Call("send_digits", '{"digits": "12#"}'),)}),
        says(0.6, 0.8),
        steps=(HEARS, LEAVES),
        agent={"tools": ("hang_up", "send_digits")},
    ),
}
BACK: Final = {"busy": "busy", "no-answer": "no-answer", "declined": "declined", "left": "declined", "failed": "failed"}
GONE: Final = ("completed", "cold", "sip")


@dataclass(frozen=True)
class Run:
    """The calls, and the dials of the account."""

    held: dict[str, Held]
    dials: list[Dialled]
    starts: dict[str, int]  # recordings begun, by call
    metrics: dict[str, float]

    def __getitem__(self, name: str) -> Held:
        return self.held[name]

    def dialled(self, name: str) -> list[Dialled]:
        return [one for one in self.dials if one.parent_sid == self.held[name].call.call_sid]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Iterator[Run]:
    dials: list[Dialled] = []
    starts: dict[str, int] = {}
    metrics: dict[str, float] = {}

    def then(world: Any, outcome: Any) -> None:
        dials.extend(world.twilio.dials)
        metrics.update(world.gateway.metrics())
        starts.update({sid: sum(one.recorded for one in found) for sid, found in world.twilio.rest.starts.items()})

    folder = tmp_path_factory.mktemp("transfer")
    held = hold_all(folder, shared_store, NO_SOUND, CASES, head_start_s={}, then=then, callees=CALLEES)
    yield Run(held, dials, starts, metrics)


def outputs(session: AiLedger) -> list[Any]:
    return [json.loads(output["output"]) for output in session.tool_outputs]


@pytest.mark.parametrize("name", CASES)
def test_neither_twin_has_a_complaint(run: Run, name: str) -> None:
    one = run[name]
    assert (one.call.error, one.call.warnings) == ("", [])
    assert [session.violations for session in one.sessions] == [[] for _ in one.sessions]
    assert one.row["result"] == "success", one.row["detail"]
    assert [dialled.problems for dialled in run.dialled(name)] == [[] for _ in run.dialled(name)]


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_recorded_once(run: Run, name: str) -> None:
    assert run.starts[run[name].call.call_sid] == 1


@pytest.mark.parametrize("name", GONE)
def test_a_caller_is_connected_and_the_agent_is_gone(run: Run, name: str) -> None:
    one = run[name]
    (dialled,) = run.dialled(name)
    assert (dialled.status, dialled.bridged) == ("completed", True)
    assert dialled.spoken == ([] if name == "cold" else [f"{SUMMARY} {ACCEPT}"])
    assert len(one.call.streams_s) == 1
    assert one.row["reason"] == "transferred"
    (note,) = one.events("transfer_ended")
    assert note == {"target": "sales", "status": "completed"}
    assert one.is_whole(one.responses[0])


@pytest.mark.parametrize("name", BACK)
def test_a_caller_who_is_not_connected_is_back_in_the_conversation(run: Run, name: str) -> None:
    one, outcome = run[name], BACK[name]
    (dialled,) = run.dialled(name)
    assert not dialled.bridged
    assert [note["status"] for note in one.events("transfer_ended")] == [outcome]
    assert len(one.call.streams_s) == 2
    assert one.call.streams_s[1] - dialled.ended_s < 2.0 + one.slack_s
    given = [output for session in one.sessions for output in outputs(session)]
    assert given == [{"status": outcome}]
    assert one.row["reason"] == "caller_hangup"
    assert one.is_whole(one.responses[-1])
    assert len(one.responses) == 2
    assert one.responses[-1].asked


@pytest.mark.parametrize("name", [*BACK, "digits"])
def test_a_call_that_is_soon_back_continues_in_the_same_session(run: Run, name: str) -> None:
    (session,) = run[name].sessions
    assert restated(session) == []


def test_a_session_that_came_before_the_transfer_is_given_its_outcome(run: Run) -> None:
    one = run["session_lost"]
    first, second = one.sessions
    assert (outputs(first), outputs(second), second.errors) == ([], [{"status": "busy"}], [])
    (call_id,) = [call.call_id for call in first.calls]
    kinds = [item.kind for item in second.items if item.call_id == call_id]
    assert kinds == ["function_call", "function_call_output"]
    assert len(run.dialled("session_lost")) == 1
    assert one.row["reason"] == "caller_hangup"
    assert one.is_whole(one.responses[-1])


def test_digits_reach_the_other_end_and_the_conversation_continues(run: Run) -> None:
    one = run["digits"]
    assert one.call.tones == "ww12#"
    assert outputs(one.sessions[0]) == [{"status": "sent"}]
    assert [note["after"] for note in one.events("resumed")] == ["digits_sent"]
    assert one.is_whole(one.responses[-1])


def test_an_unknown_target_is_an_error_that_names_the_others(run: Run) -> None:
    one = run["unknown"]
    (output,) = outputs(one.sessions[0])
    assert (output["error"], output["detail"]) == ("invalid_arguments", "There is no such target; use one of: sales.")
    assert run.dialled("unknown") == []


def test_a_caller_who_speaks_before_the_transfer_keeps_the_agent(run: Run) -> None:
    one = run["interrupted"]
    assert run.dialled("interrupted") == []
    assert [output["error"] for output in outputs(one.sessions[0])] == ["cancelled"]
    assert one.is_whole(one.responses[-1])


def test_a_caller_who_leaves_while_it_rings_is_not_called_back(run: Run) -> None:
    one = run["hung_up"]
    (dialled,) = run.dialled("hung_up")
    assert dialled.status == "canceled"
    assert one.row["reason"] == "caller_hangup"
    assert [note["status"] for note in one.events("transfer_ended")] == ["canceled"]


def test_the_model_is_given_names_and_never_numbers(run: Run) -> None:
    tools = {tool["name"]: tool for tool in run["busy"].sessions[0].updates[0]["tools"]}
    assert tools["transfer"]["parameters"]["properties"]["target"]["enum"] == ["sales"]
    assert "+1555" not in json.dumps([session.updates for session in run["busy"].sessions])


def test_transfers_are_counted_by_outcome(run: Run) -> None:
    assert run.metrics['gw_transfers_total{outcome="completed"}'] == len(GONE)
    assert run.metrics['gw_transfers_total{outcome="declined"}'] == 2.0
