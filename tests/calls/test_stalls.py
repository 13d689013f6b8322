"""A worker stalls during a talkspurt: the caller hears what the pure pacer computes.

No frame is lost or reordered, overdue frames are sent immediately but at most one lead of them, and the counted underrun equals
the silence that was heard. The stalls take 50, 100, 300 and 1000 ms, with a lead of 100 ms. A busy machine adds delays, so the
pacer is fed with the measured times; the planned times give only the least silence.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import gevent
import gevent.monkey
import pytest

import gw.media.downlink
from gw.bench.gateway_process import GatewayProcess
from gw.call.audio.pacer import Pacer
from gw.config import Media, Store
from gw.control.admin.client import AdminClient
from gw.protocol.audio import PTIME_S
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.player import Player
from tests.calls.conftest import open_world
from tests.calls.hearing import padded, until
from tests.program import program
from tests.timing import scaled

GATEWAY = program()
AUTH_TOKEN = "an auth token of the tests"
STALLS_S = (0.05, 0.1, 0.3, 1.0)
LEAD_MS = 100
LEAD_S = LEAD_MS / 1000
#: One talkspurt, longer than all stalls together, that the AI sends long before it is played.
SPEECH = lasting(4)[:26_403]
SCRIPT = AiScript(greeting=SPEECH, hang_up_after=1)
FRAMES = len(padded([SPEECH])) // 160
#: Rest between two stalls, in which the cushion fills again.
REST_S = 0.3
#: Allowance for times in which the machine does not run a process, per call.
NOT_RUN_S = 0.3
#: The player is exact to a sample, 0.125 ms, per gap; the report to half a millisecond.
ROUNDING_S = 0.001


class Stall(NamedTuple):
    begin_s: float
    end_s: float


def stalled(stop: Callable[[float], None]) -> list[Stall]:
    """Stall the worker with `stop` for each of STALLS_S. Returns the measured stalls."""
    stalls = []
    for duration_s in STALLS_S:
        gevent.sleep(REST_S)
        begin_s = time.monotonic()
        stop(duration_s)
        stalls.append(Stall(begin_s, time.monotonic()))
    gevent.sleep(REST_S)
    return stalls


def least_underrun_s(first_s: float, stalls: Sequence[Stall]) -> float:
    """Return the underrun of a TX that is late only by the stalls."""
    pacer, now_s = Pacer(LEAD_MS), first_s
    for _ in range(FRAMES):
        due_s = max(now_s, pacer.deadline(now_s))
        now_s = next((stall.end_s for stall in stalls if stall.begin_s <= due_s < stall.end_s), due_s)
        pacer.on_sent(now_s)
    return pacer.underrun_s


def check_as_modelled(times_s: Sequence[float], noise_s: float) -> float:
    """Check that pacer and ear agree on these times, with at most one lead buffered.

    Returns the silence within the talkspurt.
    """
    pacer, ear = Pacer(LEAD_MS), Player()
    for at_s in times_s:
        pacer.deadline(at_s)
        pacer.on_sent(at_s)
        ear.push(at_s, bytes(160))
        assert ear.buffered_s(at_s) <= LEAD_S + PTIME_S + noise_s
    silence_s = ear.underrun_ms / 1000
    assert abs(pacer.underrun_s - silence_s) < ROUNDING_S
    return silence_s


def check_cushion(times_s: Sequence[float], stalls: Sequence[Stall], noise_s: float) -> None:
    """Check that overdue frames came immediately after each stall: the ear has its lead again."""
    ear, full = Player(), 0
    for at_s in times_s:
        ear.push(at_s, bytes(160))
        if full < len(stalls) and at_s >= stalls[full].end_s and ear.buffered_s(at_s) >= LEAD_S - noise_s:
            assert at_s - stalls[full].end_s < REST_S + NOT_RUN_S
            full += 1
    assert full == len(stalls)


# -- a process that is stopped --------------------------------------------------------------------------------------------


def test_a_worker_process_stalls(tmp_path: Path) -> None:
    """Stop the real worker with SIGSTOP under two calls."""
    gateway = GatewayProcess(GATEWAY, tmp_path, {"media": f"lead_ms = {LEAD_MS}\n", "recording": "enabled = false\n"})
    with AiTwin(SCRIPT) as ai, TwilioTwin(gateway.url, auth_token=AUTH_TOKEN) as twilio:
        try:
            gateway.start(account_sid=twilio.account_sid, auth_token=AUTH_TOKEN, api_base=twilio.rest.url, ai_url=ai.url)
            admin = AdminClient(gateway.admin_socket, timeout_s=scaled(5.0))
            until(lambda: any(one["connected"] for one in admin.request("status")["workers"]), "the worker is on the bus")
            (pid,) = (one["pid"] for one in admin.request("status")["workers"])
            calls = [twilio.place_call(speech.script(20_000), hang_up=False, max_s=scaled(30.0)) for _ in range(2)]
            until(lambda: all(call.received_audio for call in calls), "the callers hear the agent")

            def stop(duration_s: float) -> None:
                os.kill(pid, signal.SIGSTOP)
                try:
                    gevent.sleep(duration_s)
                finally:
                    os.kill(pid, signal.SIGCONT)

            stalls = stalled(stop)
            for call in calls:
                assert call.wait(scaled(20.0))
                until(lambda call=call: (admin.request("call", call_sid=call.call_sid) or {}).get("ended_at"), "it is stored")  # type: ignore[misc]
                row = admin.request("call", call_sid=call.call_sid)
                check_heard(call, stalls)
                noise_s = 2 * len(call.player.gaps) * noise_of(call)
                assert row["quality"]["underrun_ms"] / 1000 == pytest.approx(call.player.underrun_ms / 1000, abs=noise_s)
                assert row["quality"]["frames_sent"] == row["quality"]["frames_expected"] == FRAMES
                assert row["quality"]["dropped_frames"] == {}
        finally:
            gateway.stop()


def noise_of(call: TwinCall) -> float:
    """Return a bound on a frame's late reading: the caller's own lateness and a ptime."""
    return call.late_max_s + PTIME_S


def check_heard(call: TwinCall, stalls: Sequence[Stall]) -> None:
    """Check that all audio was heard in sequence, with silence only in long stalls."""
    noise_s = noise_of(call)
    assert (call.closed_by, call.close_reason, call.error, call.warnings, call.clears) == ("gateway", "ai_hangup", "", [], [])
    assert call.received_audio == call.heard_audio == padded([SPEECH])
    assert [mark.name for mark in call.marks] == [echo.name for echo in call.echoes]
    times_s = [arrival.at_s for arrival in call.player.arrivals]
    assert len(times_s) == FRAMES
    for stall in stalls:
        assert not any(stall.begin_s + noise_s < at_s < stall.end_s for at_s in times_s), "a frame during a stall"
    silence_s = check_as_modelled(times_s, noise_s)
    check_cushion(times_s, stalls, noise_s)
    least_s = least_underrun_s(times_s[0], stalls)
    assert least_s - noise_s * len(stalls) <= silence_s <= least_s + noise_s * len(stalls) + NOT_RUN_S
    assert sum(STALLS_S[2:]) - 2 * LEAD_S - 2 * PTIME_S - noise_s <= least_s, "the long stalls are heard"


# -- a hub that is held ---------------------------------------------------------------------------------------------------


class Noted(Pacer):
    """Pacer that keeps the times of its frames."""

    __slots__ = ("sent_s",)

    def __init__(self, lead_ms: int) -> None:
        super().__init__(lead_ms)
        self.sent_s: list[float] = []

    def on_sent(self, now_s: float) -> float:
        self.sent_s.append(now_s)
        return super().on_sent(now_s)


def test_a_hub_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function blocks TX's hub. The times of all frames are known, so the count must be exact."""
    noted: list[Noted] = []

    def note(lead_ms: int) -> Noted:
        noted.append(Noted(lead_ms))
        return noted[-1]

    monkeypatch.setattr(gw.media.downlink, "Pacer", note)
    store = Store(url=f"sqlite:///{tmp_path}/stalls.db")
    with open_world(tmp_path / "var", store, SCRIPT, media=Media(lead_ms=LEAD_MS, holding_sound=False)) as w:
        call = w.twilio.place_call(speech.script(20_000), hang_up=False, max_s=scaled(30.0))
        until(lambda: call.received_audio, "the caller hears the agent")
        stalls = stalled(gevent.monkey.get_original("time", "sleep"))
        assert call.wait(scaled(20.0))
        quality = w.gateway.ended(call.call_sid)["quality"]
    (pacer,) = noted
    sent_s = pacer.sent_s
    assert (quality["frames_sent"], len(sent_s)) == (FRAMES, FRAMES)
    silence_s = check_as_modelled(sent_s, 1e-6)
    check_cushion(sent_s, stalls, 1e-6)
    assert abs(quality["underrun_ms"] / 1000 - silence_s) < ROUNDING_S
    assert least_underrun_s(sent_s[0], stalls) - ROUNDING_S <= silence_s
    assert call.received_audio == call.heard_audio == padded([SPEECH])
    arrived_s = [arrival.at_s for arrival in call.player.arrivals]
    assert all(left_s <= came_s for left_s, came_s in zip(sent_s, arrived_s, strict=True))
