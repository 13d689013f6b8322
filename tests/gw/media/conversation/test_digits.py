"""gw.media.conversation.digits: silence for AI and recording while a caller types, and the digits' way to control."""

from __future__ import annotations

import json
from collections.abc import Iterator

import gevent
import pytest

from gw import bus
from gw.call.dialogue import inputs as given
from gw.config import Agent
from gw.media.ai_in import AiIn
from gw.media.conversation import digits as digits_module
from gw.protocol import ai
from gw.protocol.hooks.pause import Pause, decode_pause
from tests.gw.media.support import CALL, ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer
from tests.timing import scaled

FRAME = "AAAA" * 53 + "AA=="


class Rig:
    """A call whose agent collects digits, with a leg in memory."""

    def __init__(self, contexts: ContextMaker, *, recorded: bool = True) -> None:
        self.context, self.emitted = contexts.context()
        self.kept: list[tuple[str, str, str]] = []
        self.keeps = True
        self.context.keep_digits = self._keep
        self.transport, self.peer = transport_and_peer()
        agent = Agent(provider="openai", greeting="", tools=("hang_up", "collect_digits"))
        self.call = call_of(self.context, agent, self.transport)
        self.call.downlink.guard.enabled = True
        self.call.downlink.guard.recording_started = recorded
        self.call.ai._new_leg = FakeLeg
        self.leg = FakeLeg()
        put_in_place(self.call, self.leg)
        self.call.dialogue.on(given.SessionReady())
        self.leg.sent.clear()
        self.ai_in = AiIn(self.call)

    def _keep(self, call_sid: str, ref: str, digits: str) -> bool:
        self.kept.append((call_sid, ref, digits))
        return self.keeps

    def collect(self, arguments: str = '{"sensitive":true,"max":8}') -> None:
        calls = ai.ToolCall("r1", "i1", "call_1", "collect_digits", arguments)
        self.ai_in._dispatch([ai.ResponseStarted("r1"), calls, ai.ResponseDone("r1", "completed", "")], self.call.ai.number)

    def type(self, keys: str) -> None:
        for key in keys:
            self.call.on_key(key)

    @property
    def jobs(self) -> list[bus.JobWanted]:
        return [event for event in self.emitted if isinstance(event, bus.JobWanted)]

    def settle(self, outcome: str = "ok") -> None:
        self.call.on_job_settled(bus.JobSettled(self.jobs[0].id, CALL, outcome, ""))

    @property
    def outputs(self) -> list[object]:
        return [json.loads(str(one[2])) for one in self.leg.sent if one[0] == "tool_output"]


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts)
    yield made
    made.transport.shut()
    made.peer.close()


def test_a_recording_is_paused_before_digits_count_and_continues_behind_the_output(rig: Rig) -> None:
    rig.collect()
    assert rig.call.uplink.is_concealed
    assert rig.call.downlink.guard.is_concealed
    (job,) = rig.jobs
    assert (job.id, job.kind, decode_pause(job.body)) == (f"{CALL}/pause/1", "pause", Pause(rig.call.events.account_sid, "1"))
    assert rig.call.digits.open_jobs == [job.id]
    rig.settle()
    assert rig.call.digits.open_jobs == []
    rig.type("12345678")
    gevent.sleep(0)
    assert rig.kept == [(CALL, "d1", "12345678")]
    assert rig.outputs == [{"digits": "****5678", "ref": "d1"}]
    assert [one.id for one in rig.jobs] == [job.id, f"{CALL}/resume/1"]
    assert not rig.call.uplink.is_concealed
    assert not rig.call.downlink.guard.is_concealed
    assert "12345678" not in repr(rig.emitted)


def test_a_call_that_is_not_recorded_pauses_nothing(contexts: ContextMaker) -> None:
    rig = Rig(contexts, recorded=False)
    rig.collect()
    rig.type("1234#")
    gevent.sleep(0)
    assert rig.jobs == []
    assert rig.outputs == [{"digits": "****", "ref": "d1"}]


def test_a_recording_that_is_not_paused_fails_the_tool(rig: Rig) -> None:
    rig.collect()
    rig.settle("unavailable")
    (output,) = rig.outputs
    assert output["error"] == "unavailable"  # type: ignore[index]
    assert [one.kind for one in rig.jobs] == ["pause", "resume"], "Twilio may have paused it"


def test_another_jobs_result_changes_nothing(rig: Rig) -> None:
    rig.collect()
    assert rig.call.digits.on_settled(bus.JobSettled("x", CALL, "ok", "")) is None
    assert rig.call.digits.open_jobs


def test_the_ai_hears_silence_meanwhile(rig: Rig) -> None:
    rig.collect()
    rig.call.uplink.push(FRAME)
    rig.call.uplink.push_any(FRAME, 1.0)
    rig.settle()
    rig.type("1#")
    gevent.sleep(0)
    rig.call.uplink.push(FRAME)
    heard = [one[1] for one in rig.leg.sent if one[0] == "send_audio"]
    assert [one == FRAME for one in heard] == [False, False, True]
    assert len({len(one) for one in heard}) == 1


def test_control_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_module, "KEEP_PAUSE_S", 0.01)
    rig.keeps = False
    rig.collect()
    rig.settle()
    rig.type("1234#")
    gevent.sleep(scaled(0.02))
    assert rig.outputs == []
    rig.keeps = True
    gevent.sleep(scaled(0.1))
    assert rig.outputs == [{"digits": "****", "ref": "d1"}]
    assert set(rig.kept) == {(CALL, "d1", "1234")}


def test_control_that_never_keeps_them_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_module, "KEEP_PAUSE_S", 0.001)
    rig.keeps = False
    rig.collect()
    rig.settle()
    rig.type("1234#")
    gevent.sleep(scaled(0.2))
    assert len(rig.kept) == digits_module.KEEP_TRIES
    assert rig.outputs == [], "the dialogue's own bound answers"


def test_each_collection_has_its_own_pause_and_reference(rig: Rig) -> None:
    digits = rig.call.digits
    assert [digits.next_ref(), digits.next_ref()] == ["d1", "d2"]
    digits.conceal(True)
    digits.conceal(False)
    digits.conceal(True)
    assert [job.id.removeprefix(CALL) for job in rig.jobs] == ["/pause/1", "/resume/1", "/pause/2"]
