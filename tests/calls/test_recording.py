"""Every call with audio is recorded once, from its first frame, whatever Twilio answers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gevent

from gw.call.audio.hold_tone import hold_tone
from gw.config import Media, Recording, Store
from gw.control.rows import RecordingRow
from gw.media.ai_out import TURN_S
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World, WorldMaker
from tests.calls.hearing import in_parallel, not_run_ms, until
from tests.timing import scaled

#: Exactly three frames, and no more audio from the AI.
SHORT = AiScript(greeting=lasting(1)[:480])
MUTE = AiScript(thinking_s=60.0)
BRIEF = AiScript(greeting=lasting(1)[:160], hang_up_after=1)
LONG = AiScript(greeting=lasting(5))
#: Limit from the first frame to the request to Twilio.
TRIGGER_S = 0.25
#: Most that may pass between a frame's arrival and the twin's record of it.
LOOK_S = 0.02


class Case(NamedTuple):
    """Faults of a call's REST requests, and the expected end of its recording."""

    faults: tuple[tuple[str, int], ...]
    requests: int  # number of requested starts
    state: str
    error_code: int | None = None


CASES = {
    "plain": Case((), 1, "completed"),
    "becoming in-progress": Case((("21220", 2),), 3, "completed"),
    "never in-progress": Case((("21220", 9),), 4, "failed", 21220),
    "not known yet": Case((("20404", 1),), 2, "completed"),
    "no such call": Case((("20404", 9),), 4, "failed", 20404),
    "wrong credentials for a moment": Case((("20003", 1),), 2, "completed"),
    "too many requests": Case((("20429", 2),), 3, "completed"),
    "a proxy's page": Case((("503", 1),), 2, "completed"),
    "a page with status 200": Case((("html_200", 1),), 2, "completed"),
    "half an answer": Case((("not_json", 1),), 2, "completed"),
    "done, never answered": Case((("timeout_with_effect", 1),), 1, "completed"),
    "never answered": Case((("timeout_without_effect", 1),), 2, "completed"),
    "absent": Case((), 1, "absent", 0),
}


def check_first_request(w: World, call: TwinCall) -> None:
    """Check that the first request followed the first frame within TRIGGER_S."""
    first_s = call.player.first_heard_s
    assert first_s is not None
    asked_s = w.twilio.rest.starts[call.call_sid][0].at - time.time() + time.monotonic()
    assert first_s - LOOK_S < asked_s < first_s + TRIGGER_S + not_run_ms(call) / 1000, call.call_sid
    row = w.gateway.store.recording(call.call_sid)
    assert row is not None
    assert row.first_audio_at <= w.twilio.rest.starts[call.call_sid][0].at
    assert 0 <= row.trigger_ms < TRIGGER_S * 1000 + not_run_ms(call)


def final_row(w: World, call: TwinCall) -> RecordingRow:
    """Wait until a call's recording is final; return its row."""

    def is_final() -> bool:
        row = w.gateway.store.recording(call.call_sid)
        return row is not None and row.state in ("completed", "failed", "absent")

    until(is_final, f"the recording of {call.call_sid} is final")
    row = w.gateway.store.recording(call.call_sid)
    assert row is not None
    return row


def outcomes(w: World) -> dict[str, int]:
    """Return gw_recordings_total by outcome, without zeros."""
    names = ("started", "completed", "failed", "absent", "call_over", "skipped", "duplicate", "twice")
    metrics = w.gateway.metrics()
    counts = {name: int(metrics[f'gw_recordings_total{{outcome="{name}"}}']) for name in names}
    return {name: count for name, count in counts.items() if count}


def test_one_recording_whatever_twilio_answers(world: WorldMaker) -> None:
    late = Media(hold_after_s=2.5)  # the holding sound, which only the mute call shall hear
    with world(lambda index, path: SHORT if index < len(CASES) else MUTE, media=late) as w:
        rest, calls = w.twilio.rest, {}
        for name, case in CASES.items():
            calls[name] = call = w.twilio.place_call(speech.script(4500))
            for fault, times in case.faults:
                rest.fail(fault, times, call.call_sid)  # type: ignore[arg-type]
            if name == "absent":
                rest.absent_calls.add(call.call_sid)
        until(lambda: len(w.ai.sessions) == len(CASES), "every call has its AI")
        mute = w.twilio.place_call(speech.script(6000))
        assert w.twilio.wait(scaled(20.0))
        rest.wait_callbacks()

        for name, case in CASES.items():
            call = calls[name]
            assert (call.closed_by, len(call.received_audio)) == ("caller", 480), name
            starts = rest.starts[call.call_sid]
            assert len(starts) == case.requests, name
            assert sum(start.recorded for start in starts) == (0 if case.state == "failed" else 1), name
            check_first_request(w, call)
            row = final_row(w, call)
            assert (row.state, row.error_code, row.attempts) == (case.state, case.error_code, case.requests), name
            made = rest.recordings_of(call.call_sid)
            assert len(made) == (0 if case.state == "failed" else 1), name
            assert row.recording_sid == (made[0].sid if made else None), name
            if case.state == "completed":
                assert (row.duration_s, row.channels) == (made[0].seconds, 2), name
                assert row.url.endswith(made[0].sid), name
            assert w.gateway.ended(call.call_sid)["recording"]["state"] == case.state

        assert (hold_tone() * 3).startswith(mute.received_audio)
        assert (mute.received_audio != b"", rest.starts.get(mute.call_sid)) == (True, None)
        assert w.gateway.ended(mute.call_sid)["recording"] is None
        assert rest.complaints == []
        assert outcomes(w) == {"started": 11, "completed": 10, "absent": 1, "failed": 2}
        metrics = w.gateway.metrics()
        assert metrics["gw_recording_trigger_seconds_count"] == len(CASES)


def test_a_call_that_ends_after_a_frame_is_recorded_too(world: WorldMaker) -> None:
    """The recording is requested even if the call ends before AI-out's next turn."""
    with world(lambda index, path: BRIEF if index < 6 else LONG, recording=Recording(pool_size=1)) as w:
        calls = []
        for n in range(8):
            breaks = {0: _abort_when_heard} if n >= 6 else {}
            calls.append(w.twilio.place_call(speech.script(4000), hang_up=False, max_s=scaled(10.0), hooks=breaks))
            until(lambda: len(w.ai.sessions) == len(calls), "the call's AI session is up")
        assert w.twilio.wait(scaled(15.0))
        for call in calls:
            assert call.received_audio
            row = final_row(w, call)
            asked = len(w.twilio.rest.starts.get(call.call_sid, ()))
            assert row.attempts == asked
            assert asked == 1 or (asked, row.reason) == (0, "call_ended")  # a busy store answered after the call's end
            made = w.twilio.rest.recordings_of(call.call_sid)
            assert row.state == ("completed" if made else "failed")
            if not made:  # Twilio refused, and the call ended before a second attempt
                assert row.reason in ("call_over", "call_ended")
            stored = w.gateway.ended(call.call_sid)
            assert stored["first_audio_at"] == row.first_audio_at
            assert stored["quality"]["first_audio_ms"] >= 0


def _abort_when_heard(call: TwinCall) -> None:
    call.wait_for(lambda call: bool(call.received_audio))
    call.abort()


def test_where_and_when_recordings_start(world: WorldMaker, tmp_path: Path) -> None:
    """A slow Twilio, a full pool, recording switched off, no credentials: one world each, at the same time."""
    with ExitStack() as opened:

        def opens(name: str, **options: Any) -> World:
            sqlite = Store(url=f"sqlite:///{tmp_path}/{name}.db")
            return opened.enter_context(world(SHORT, var_dir=name, store=sqlite, **options))

        in_parallel(
            partial(a_slow_twilio, opens("slow")),
            partial(a_full_pool, opens("full", recording=Recording(pool_size=1))),
            partial(switched_off, opens("off", recording=Recording(enabled=False))),
            partial(without_credentials, opens("bare", signed=False)),
        )


def a_slow_twilio(w: World) -> None:
    """With slow answers no call waits for another, and each start is requested once."""
    w.twilio.rest.delay_s = 1.0
    calls = [w.twilio.place_call(speech.script(2500)) for _ in range(12)]
    assert w.twilio.wait(scaled(15.0))
    for call in calls:
        check_first_request(w, call)
        assert final_row(w, call).state == "completed"
        assert len(w.twilio.rest.starts[call.call_sid]) == 1
    assert outcomes(w) == {"started": 12, "completed": 12}


def a_full_pool(w: World) -> None:
    """While the worker's pool is full the guard stays armed; then every call's recording starts.

    Calls that ask in the same turn of the hub start one per turn.
    """
    w.twilio.rest.delay_s = 0.5
    pool = w.gateway.worker.context.recording_pool
    busy = pool.spawn(gevent.sleep, scaled(1.0))
    calls = [w.twilio.place_call(speech.script(2500 * round(scaled(1.0)))) for _ in range(4)]
    until(lambda: all(call.received_audio for call in calls), "every call heard the greeting")
    assert w.twilio.rest.starts == {}
    assert not busy.dead
    busy.join()
    freed_at = time.time()
    until(lambda: len(w.twilio.rest.starts) == len(calls), "every recording starts")
    first = [w.twilio.rest.starts[call.call_sid][0].at for call in calls]
    assert freed_at - LOOK_S < min(first)
    assert max(first) < freed_at + len(calls) * TURN_S + TRIGGER_S + max(not_run_ms(call) for call in calls) / 1000
    assert w.twilio.wait(scaled(15.0))
    for call in calls:
        assert final_row(w, call).state == "completed"
        assert len(w.twilio.rest.starts[call.call_sid]) == 1


def switched_off(w: World) -> None:
    """With recording switched off, Twilio is not asked and no row is written."""
    call = w.twilio.place_call(speech.script(1000))
    assert call.wait(scaled(10.0))
    assert len(call.received_audio) == 480
    assert w.gateway.ended(call.call_sid)["recording"] is None
    assert (w.twilio.rest.starts, outcomes(w)) == ({}, {})


def without_credentials(w: World) -> None:
    """Without credentials recording is off: no row, and an event has the reason."""
    call = w.twilio.place_call(speech.script(1000))
    assert call.wait(scaled(10.0))
    assert len(call.received_audio) == 480
    assert w.gateway.ended(call.call_sid)["recording"] is None
    assert [event["data"] for event in w.gateway.events("recording_off")] == [{"by": "no_credentials"}]
    assert (w.twilio.rest.starts, outcomes(w)) == ({}, {})
