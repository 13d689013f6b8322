"""The caller hears the AI's audio byte for byte, however the AI delivers it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gw.config import Media, Store
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.sound import FRAME_BYTES, SILENCE, silence
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World, WorldMaker
from tests.calls.hearing import WORD, check_ear, in_parallel, not_run_ms, padded, session_of, until
from tests.timing import scaled

VOICE = lasting(10)
#: A caller who answers twice: each word after the agent's 0.7 s, each pause long enough to end a turn.
DIALOGUE = speech.script(1300, WORD, 1700, WORD, 4000)
QUIET = speech.script(10_000)


@dataclass(frozen=True)
class Crumbs(AiScript):
    """Sends five seconds in one chunk, and byte by byte what follows them."""

    def chunks(self, audio: bytes, session: int, number: int) -> list[bytes]:
        return [audio[:40_000], *(audio[at : at + 1] for at in range(40_000, len(audio)))]


def dialogue(seed: int, **changes: Any) -> AiScript:
    """Return an AI with three responses of odd lengths, which depend on the seed."""
    begin = 997 * seed % 40_000
    responses = [VOICE[begin + at : begin + at + size] for at, size in ((0, 5603), (5603, 4801), (10_404, 5279))]
    return AiScript(greeting=responses[0], answers=(responses[1],), goodbye=responses[2], hang_up_after=3, seed=seed, **changes)


def place(w: World, speeches: Sequence[Sequence[bytes]]) -> list[TwinCall]:
    """Place one call per script, so that the n-th call has the n-th session."""
    calls: list[TwinCall] = []
    for spoken in speeches:
        calls.append(w.twilio.place_call(spoken, hang_up=False, max_s=scaled(30.0)))
        until(lambda: len(w.ai.sessions) == len(calls), "the call's AI session is up")
    return calls


def check_exact(w: World, call: TwinCall, responses: int) -> None:
    """Check that the caller heard exactly the AI's audio, once and in sequence."""
    session = session_of(w, call)
    expected = padded(response.audio for response in session.responses)
    assert [bytes(response.audio) for response in session.responses] == [response.intended for response in session.responses]
    assert len(session.responses) == responses
    assert call.received_audio == expected
    assert call.heard_audio == expected
    assert all(arrival.size == FRAME_BYTES for arrival in call.player.arrivals)
    assert len(call.marks) == sum(1 for response in session.responses if response.audio)
    assert (session.truncates, session.errors, session.violations, call.clears) == ([], [], [], [])
    check_ear(call)
    row = w.gateway.ended(call.call_sid)
    assert (row["reason"], call.closed_by, call.close_reason) == ("ai_hangup", "gateway", "ai_hangup")
    quality = row["quality"]
    assert quality["frames_sent"] == quality["frames_expected"] == len(expected) // FRAME_BYTES
    assert (quality["dropped_frames"], quality["bargeins"]) == ({}, 0)


def test_every_way_of_delivery_is_heard_exactly(world: WorldMaker, tmp_path: Path) -> None:
    scripts = [
        dialogue(1),
        dialogue(2, speed=math.inf),
        dialogue(3, whole=True),
        dialogue(4, speed=2.0),
        Crumbs(greeting=VOICE[:40_401], hang_up_after=1, speed=math.inf),  # with any pause, this would be slower than speech
        AiScript(greeting=VOICE[:1], hang_up_after=1),
        AiScript(greeting=VOICE[7:168], hang_up_after=1),
        AiScript(greeting=VOICE[:160], hang_up_after=1, whole=True),
        AiScript(greeting=SILENCE * 801, hang_up_after=1),
        AiScript(greeting=b"\x00" * 479 + b"\x7f", hang_up_after=1),
    ]

    def listen(w: World) -> None:
        calls = place(w, [DIALOGUE] * 4 + [QUIET] * 6)
        assert w.twilio.wait(scaled(30.0))
        for call, responses in zip(calls, [3] * 4 + [1] * 6, strict=True):
            check_exact(w, call, responses)
        check_counters(w, sum(len(call.received_audio) // FRAME_BYTES for call in calls))

    with ExitStack() as opened:
        worlds = []
        for lead_ms in (0, 100, 500):
            sqlite = Store(url=f"sqlite:///{tmp_path}/{lead_ms}.db")
            media = Media(lead_ms=lead_ms, holding_sound=False)
            made = world(lambda index, path: scripts[index], media=media, store=sqlite, var_dir=f"lead{lead_ms}")
            worlds.append(opened.enter_context(made))
        in_parallel(*(partial(listen, w) for w in worlds))


def check_counters(w: World, frames: int) -> None:
    """Check that the metrics count the heard frames, and no dropped ones."""
    metrics = w.gateway.metrics()
    assert metrics["gw_tx_frames_total"] == frames
    assert metrics["gw_tx_send_seconds_count"] == metrics["gw_tx_lateness_seconds_count"] == frames
    assert [metrics[f'gw_tx_dropped_frames_total{{reason="{why}"}}'] for why in ("bargein", "overrun", "call_ended")] == [0, 0, 0]


def test_a_minute_in_one_delta_is_sent_at_the_pace_of_speech(world: WorldMaker) -> None:
    """The caller hangs up after three seconds of the minute."""
    minute = lasting(60)
    with world(AiScript(greeting=minute, whole=True)) as w:
        calls = [w.twilio.place_call(speech.script(3000)) for _ in range(6)]
        assert w.twilio.wait(scaled(20.0))
        for call in calls:
            assert (call.closed_by, call.error, call.warnings, call.marks) == ("caller", "", [], [])
            talked_s = len(call.received_audio) / 8000
            lasted_s = call.ended_s - call.started_s if call.ended_s and call.started_s else 0.0
            assert 2.0 - not_run_ms(call) / 1000 < talked_s < lasted_s + 0.1 + 0.02, "never more than a lead ahead"
            arrivals = call.player.arrivals
            took_ms = (arrivals[-1].at_s - arrivals[0].at_s) * 1000
            assert abs(took_ms - ((len(arrivals) - 1) * 20 - 100)) < 40 + not_run_ms(call), "one lead immediately, then real time"
            assert minute.startswith(call.received_audio)
            assert call.received_audio.startswith(call.heard_audio)
            assert len(call.heard_audio) > 16_000
            row = w.gateway.ended(call.call_sid)
            quality = row["quality"]
            assert (row["reason"], quality["frames_expected"]) == ("caller_hangup", quality["frames_sent"])
            assert quality["frames_sent"] + quality["dropped_frames"]["call_ended"] == len(minute) // FRAME_BYTES


def test_the_parrot_repeats_the_caller_exactly(world: WorldMaker, tmp_path: Path) -> None:
    greeting = (Path(__file__).parents[2] / "gw/media/ai/prompts/greeting.ulaw").read_bytes()
    spoken = [speech.load("something-wrong"), WORD, silence(7) + WORD[:6321], VOICE[9000:15_001]]
    sqlite = Store(url=f"sqlite:///{tmp_path}/parrot.db")
    with world(agent={"provider": "parrot"}, store=sqlite) as w:
        calls = [w.twilio.place_call(speech.script(5000, words, len(words) // 8 + 3000)) for words in spoken]
        assert w.twilio.wait(scaled(20.0))
        for words, call in zip(spoken, calls, strict=True):
            check_ear(call)
            assert call.received_audio.startswith(padded([greeting]))
            echo = call.received_audio[len(padded([greeting])) :]
            assert echo in call.sent_speech
            assert len(words) * 0.8 < len(echo) < len(words) + 8000
            assert call.heard_audio == call.received_audio
            assert len(call.marks) == 2
            turns = w.gateway.ended(call.call_sid)["turns"]
            assert [turn["role"] for turn in turns] == ["agent", "caller", "agent"]
            assert [turn["heard_ms"] for turn in turns] == [len(greeting) // 8, None, len(echo) // 8]
            assert not any(turn["interrupted"] for turn in turns)


def test_callers_at_the_same_moment_hear_their_own_ai(world: WorldMaker) -> None:
    """Twenty-four calls begin at the same time; each hears its own AI and no other."""
    with world(lambda index, path: AiScript(greeting=VOICE[641 * index :][:6401], hang_up_after=1, seed=index)) as w:
        calls = [w.twilio.place_call(QUIET, hang_up=False, max_s=scaled(20.0)) for _ in range(24)]
        assert w.twilio.wait(scaled(30.0))
        for call in calls:
            check_exact(w, call, 1)
        assert len({call.received_audio for call in calls}) == len(calls)
