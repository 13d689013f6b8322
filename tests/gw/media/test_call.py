"""gw.media.call: what concerns more than one part of a call, and the report of its end."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

import pytest

from gw import bus
from gw.call.conversation import CUT, ROOT, Utterance
from gw.call.dialogue import inputs as given
from gw.call.resume import Resumed
from gw.call.state import Reason
from gw.config import Agent, Greeting
from gw.media.ai_side import AiSide
from gw.media.call import Call
from gw.media.call_ending import CallEnding
from gw.media.call_events import CallEvents
from gw.media.conversation.dialogue import CallDialogue
from gw.media.downlink import Downlink
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.support import ACCOUNT, ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer


@pytest.fixture
def emitted() -> list[bus.Event]:
    return []


@pytest.fixture
def call(contexts: ContextMaker, emitted: list[bus.Event]) -> Iterator[Call]:
    """An active call with an AI leg in memory."""
    context, _ = contexts.context()
    context.emit = emitted.append
    transport, peer = transport_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    put_in_place(call, FakeLeg())
    call.dialogue.on(given.SessionReady())
    yield call
    transport.shut()
    peer.close()


def of(emitted: list[bus.Event], kind: type) -> list[Any]:
    return [event for event in emitted if isinstance(event, kind)]


def test_the_start_is_reported_first(call: Call, emitted: list[bus.Event]) -> None:
    (started,) = of(emitted, bus.CallStarted)
    assert emitted[0] is started
    assert (started.call_sid, started.account_sid, started.agent) == (call.sid, ACCOUNT, "default")


@pytest.mark.parametrize(
    ("signed", "enabled", "records", "by"),
    [
        (False, True, True, "no_credentials"),
        (True, False, True, "disabled"),
        (True, True, False, "route"),
        (True, True, True, ""),
    ],
)
def test_a_call_that_is_not_recorded_has_the_reason(
    contexts: ContextMaker, emitted: list[bus.Event], signed: bool, enabled: bool, records: bool, by: str
) -> None:
    context, _ = contexts.context(signed=signed, public_url="http://localhost", recording={"enabled": enabled})
    context.emit = emitted.append
    transport, peer = transport_and_peer()
    call_of(context, Agent(greeting=""), transport, records=records)
    assert [event.data for event in of(emitted, bus.CallEvent) if event.kind == "recording_off"] == ([{"by": by}] if by else [])
    transport.shut()
    peer.close()


def test_an_item_heard_before_an_interruption_is_stored_as_heard(call: Call, emitted: list[bus.Event]) -> None:
    """Its mark's echo comes after the clear, which drops the mark."""
    for item, response in (("i1", "r1"), ("i2", "r2")):
        call.report_turns(call.turns.on_agent_audio(item, 0))
        call.turns.on_agent_text(item, item, 0)
        call.downlink.play(response, item, bytes(5 * FRAME_BYTES))
        call.downlink.end_response(response)
    pieces = [call.downlink.playout.pop() for _ in range(6)]
    began_s = monotonic() - 0.15
    for _ in range(5):
        call.downlink.pacer.deadline(began_s)
        call.downlink.pacer.on_sent(began_s)
    call.dialogue.on(given.Audio("r2"))
    call.dialogue.on(given.SpeechStarted("c1"))
    call.on_mark_echo(pieces[5].name)  # type: ignore[union-attr]
    assert [(turn.text, turn.interrupted, turn.heard_ms) for turn in of(emitted, bus.Turn)] == [
        ("i1", False, 100),
        ("i2", True, 0),
    ]


def test_a_mark_that_comes_back_resolves_the_turns_before_it(call: Call, emitted: list[bus.Event]) -> None:
    call.report_turns(call.turns.on_agent_audio("i1", 0))
    call.turns.on_agent_text("i1", "hello", 0)
    call.downlink.play("r1", "i1", bytes(2 * FRAME_BYTES))
    call.downlink.end_response("r1")
    pieces = [call.downlink.playout.pop() for _ in range(3)]
    assert of(emitted, bus.Turn) == []
    call.on_mark_echo("no such mark")
    assert of(emitted, bus.Turn) == []
    call.on_mark_echo(pieces[2].name)  # type: ignore[union-attr]
    (turn,) = of(emitted, bus.Turn)
    assert (turn.text, turn.interrupted, turn.heard_ms) == ("hello", False, 40)


def test_a_conversation_is_restored_for_a_stream_that_resumes_a_call(call: Call, emitted: list[bus.Event]) -> None:
    asked: list[tuple[str, str, str]] = []

    def ask(call_sid: str, about: str, account_sid: str) -> bus.Answer | None:
        asked.append((call_sid, about, account_sid))
        if len(asked) == 1:
            return None  # control restarts
        if len(asked) == 2:
            return bus.Answer(1)  # its disk or its store failed
        return bus.Answer(1, step="resume", utterances=[Utterance("caller", "before the line broke")], spent_usd=0.5)

    call.context.ask = ask
    call.restore_conversation()
    assert (asked, call.spending.earlier_usd) == ([], 0.0)
    call.events.resumed = Resumed(2, call.events.started_at - 60.0)
    call.restore_conversation()
    assert asked == [(call.sid, "conversation", call.events.account_sid)] * 3
    assert call.ai.conversation.utterances() == [Utterance("caller", "before the line broke")]
    assert call.spending.earlier_usd == 0.5


def test_a_call_resumes_without_its_conversation_if_control_stays_away(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.call.RESTORE_S", 0.2)
    call.events.resumed = Resumed(1, call.events.started_at - 60.0)
    call.restore_conversation()
    assert call.ai.conversation.utterances() == []


def _alive() -> int:
    kinds = (Call, AiSide, CallDialogue, CallEnding, CallEvents, Downlink)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


def test_an_ended_call_is_freed_without_the_collector(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    transport, peer = transport_and_peer()
    gc.collect()
    gc.disable()
    try:
        before = _alive()
        call = call_of(context, Agent(greeting=""), transport)
        assert _alive() == before + 6
        call.end(Reason.CALLER_HANGUP)
        call.report_end()
        del call
        assert _alive() == before
    finally:
        gc.enable()
    transport.shut()
    peer.close()


# -- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "result", "level"),
    [(Reason.CALLER_HANGUP, "success", "INFO"), (Reason.PHONE_LOST, "peer_error", "WARNING")],
)
def test_a_report_counts_what_was_not_heard(
    call: Call, emitted: list[bus.Event], caplog: pytest.LogCaptureFixture, reason: Reason, result: str, level: str
) -> None:
    call.ai.uplink.on_lost(call.ai.leg)
    call.downlink.playout.push("r1", "i1", bytes(3 * FRAME_BYTES))
    call.uplink.push("//8=")
    call.end(reason, "words " * 200)
    with caplog.at_level(logging.INFO):
        call.report_end()
    ended = emitted[-1]
    assert isinstance(ended, bus.CallEnded)
    assert (ended.reason, ended.result, len(ended.detail)) == (reason, result, 500)
    quality = ended.quality
    assert (quality.frames_sent, quality.dropped_frames) == (0, {"call_ended": 3})
    assert (quality.uplink_dropped_frames, quality.first_audio_ms) == ({"call_ended": 1}, -1)
    assert [record.levelname for record in caplog.records if record.message.startswith("call ended")] == [level]


RECORDED: Final = Agent(greeting=Greeting(file="/hello.wav", text="Hello, this is Acme. How can I help?"))


@pytest.fixture
def greeted(contexts: ContextMaker, emitted: list[bus.Event]) -> Iterator[Call]:
    """A call whose recorded greeting plays, and whose AI leg is not connected."""
    context, _ = contexts.context()
    context.emit = emitted.append
    context.greetings["/hello.wav"] = bytes(range(1, 161)) * 100
    transport, peer = transport_and_peer()
    call = call_of(context, RECORDED, transport)
    call.greet()
    yield call
    transport.shut()
    peer.close()


def test_a_recorded_greeting_is_queued_at_the_start_and_restated_to_the_session(greeted: Call) -> None:
    assert greeted.downlink.unsent_s() == 2.0
    assert greeted.first_word_ms in range(200)
    leg = FakeLeg()
    put_in_place(greeted, leg)
    greeted.uplink.push("AAAA")
    greeted.dialogue.on(given.SessionReady())
    assert [sent[0] for sent in leg.sent] == ["say", "send_audio"], "before the caller's audio, and nothing is requested"
    assert leg.of("say") == [("agent", RECORDED.first_words.text, "t1", "")]


def test_an_interrupted_recorded_greeting_is_restated_with_the_words_heard(greeted: Call, emitted: list[bus.Event]) -> None:
    """By share of time: 20 of 100 frames sent are 7 of 36 characters, cut to the last whole word."""
    leg = FakeLeg()
    put_in_place(greeted, leg)
    greeted.dialogue.on(given.SessionReady())
    for _ in range(20):
        greeted.downlink.playout.pop()
        greeted.downlink.pacer.deadline(0.0)
        greeted.downlink.pacer.on_sent(0.0)
    greeted.dialogue.on(given.SpeechStarted("c1"))
    assert leg.of("delete_item") == ["t1"]
    assert leg.of("say")[1:] == [("agent", f"Hello,{CUT}", "t1c", ROOT)]
    assert leg.of("truncate") == [], "the AI has no audio of it"
    (turn,) = of(emitted, bus.Turn)
    assert (turn.role, turn.text, turn.interrupted, turn.heard_ms, turn.length_ms) == (
        *("agent", RECORDED.first_words.text, True),
        *(400, 2000),
    )


def test_a_resumed_call_is_not_greeted_again(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    context.greetings["/hello.wav"] = bytes(16_000)
    transport, peer = transport_and_peer()
    call = call_of(context, RECORDED, transport)
    call.events.resumed = Resumed(1, time.time() - 5.0, Reason.PHONE_LOST)
    call.greet()
    assert call.downlink.playout.is_empty
    transport.shut()
    peer.close()


@pytest.mark.parametrize(
    ("greeting", "asked_after_s", "waited_ms"),
    [("Hello.", 2.0, 31_000), ("", 30.0, 1000), ("", 0.0, 0)],
    ids=["greeting", "caller first", "nobody asked"],
)
def test_the_first_word_is_awaited_from_the_greeting_s_call_or_from_the_first_request(
    contexts: ContextMaker, greeting: str, asked_after_s: float, waited_ms: int
) -> None:
    context, emitted = contexts.context()
    transport, peer = transport_and_peer()
    call = call_of(context, Agent(greeting=greeting), transport)
    call.ai.asked_s = asked_after_s and call.events.started_s + asked_after_s
    call.on_first_word(call.events.started_s + 31.0)
    call.downlink.tx.first_audio_sent = True
    call.report_end()
    ended = emitted[-1]
    assert isinstance(ended, bus.CallEnded)
    assert (ended.quality.first_audio_ms, context.cells.first_audio.sum) == (waited_ms, pytest.approx(waited_ms / 1000))
    transport.shut()
    peer.close()
