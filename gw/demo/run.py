"""The demo's conversation: callers of real speech at a telephone twin, agents at an AI twin, the gateway between them.

Decides who speaks when. A caller waits until the agent has been heard to its end, then says the next phrase; after the last
exchange the agent says goodbye and hangs up. Nothing is interrupted, so what a caller received must equal what the AI sent, byte
for byte. Results are taken from the twins' own records, from the gateway's store and its `/metrics`; nothing is assumed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.pool import Group

from gw.bench.gateway_process import GatewayProcess, wait_until_gone
from gw.bench.histogram import QUANTILES, read_histogram
from gw.control.admin.client import AdminClient
from gw.demo.report import CallResult, Report, draw
from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, conversation
from gw.twin.ai.server import AiTwin
from gw.twin.sound import RATE_HZ, frames, write_wav
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall

#: Breath between the agent's last word and the caller's first.
PAUSE_S: Final = 0.3
#: The agent's, from the caller's last word: 500 ms of silence that end a turn, and the way there and back.
ANSWER_S: Final = 0.7
#: Between two telephones that ring; nobody dials in the same microsecond.
DIAL_S: Final = 0.05
#: What the far ends and the store may still have to say after the last call.
SETTLE_S: Final = 8.0
_POLL_S: Final = 0.02
#: The debugger logs it for every stream the gateway closes, intended or not; how the call ended is judged by its reason.
_CLOSED_BY_SERVER: Final = 31921
#: A process that was waited for is gone at once; its children were waited for by it.
_GONE_S: Final = 2.0
_ANSWERS: Final = ("connecting", "first-in-line", "nobody-available")
_GREETING, _GOODBYE = "hello-world", "thanks"


@dataclass(frozen=True)
class Script:
    """How often both sides speak: greeting, `exchanges` times caller and agent, the goodbye after the caller's last phrase."""

    exchanges: int

    @classmethod
    def lasting(cls, seconds: float) -> Script:
        """The shortest conversation that lasts so long; the goodbye alone takes four seconds."""
        script = cls(0)
        while script.seconds < seconds:
            script = cls(script.exchanges + 1)
        return script

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        said = [_GREETING, _GOODBYE] if self.exchanges else [_GOODBYE]
        said += [_ANSWERS[n % len(_ANSWERS)] for n in range(self.exchanges - 1)]
        said += [self.phrase(0, n) for n in range(self.exchanges)]
        return sum(len(speech.load(name)) for name in said) / RATE_HZ + self.exchanges * (PAUSE_S + ANSWER_S)

    @property
    def responses(self) -> int:
        """How often the agent speaks, greeting and goodbye included."""
        return self.exchanges + 1

    def phrase(self, caller: int, n: int) -> str:
        """What this caller says in exchange `n`: no two neighbours say the same at the same time."""
        return speech.CALLER_PHRASES[(caller + n) % len(speech.CALLER_PHRASES)]

    def agent(self, session: int) -> AiScript:
        """What the AI says in this session, in an order and in pieces of its own."""
        turned = [_ANSWERS[(session + n) % len(_ANSWERS)] for n in range(len(_ANSWERS))]
        spoken = [speech.WORDS[name] for name in (_GREETING, *(turned[n % len(turned)] for n in range(self.exchanges - 1)))]
        return replace(
            conversation(seed=session, hang_up_after=self.responses),
            answers=tuple(speech.load(name) for name in turned),
            agent_words=(*spoken, speech.WORDS[_GOODBYE]),
        )


class Caller:
    """One telephone. `state` is what it does right now, for whoever watches."""

    def __init__(self, number: int, script: Script, telephones: TwilioTwin, voices: AiTwin) -> None:
        self.number = number
        self.state = "rings"
        self.script = script
        self._telephones = telephones
        self._voices = voices
        self.call: TwinCall | None = None

    @property
    def session(self) -> AiLedger | None:
        """The AI's end of this call, found by the inaudible number its audio carries."""
        return None if self.call is None else self._voices.session_of(self.call.number)

    @property
    def sid(self) -> str:
        return "" if self.call is None else self.call.call_sid

    @property
    def heard_s(self) -> float:
        """Agent's speech heard so far."""
        return 0.0 if self.call is None else len(self.call.received_audio) / RATE_HZ

    def run(self) -> None:
        """Call, talk, and wait for the agent to hang up. Bounded by the plan's `max_s`."""
        max_s = self.script.seconds * 2 + 15
        self.call = self._telephones.place_call(hang_up=False, max_s=max_s, from_number=f"+1500555{self.number:04}")
        for n in range(self.script.exchanges):
            if not self._listen(responses=n + 1):
                break
            self.state = f"says “{speech.WORDS[self.script.phrase(self.number, n)]}”"
            gevent.sleep(PAUSE_S)
            phrase = speech.load(self.script.phrase(self.number, n))
            self.call.say(phrase)
            self.call.wait(len(phrase) / RATE_HZ)
        self.state = "hears the goodbye"
        self.call.wait(max_s + SETTLE_S)
        self.state = (
            "the agent hung up" if self.call.closed_by == "gateway" else f"over: {self.call.closed_by or self.call.error}"
        )

    def _listen(self, responses: int) -> bool:
        """Until so many responses have been sent and heard to their end. False when the call ended before."""
        assert self.call is not None
        while not self.call.is_over:
            session = self.session
            said = [] if session is None else session.responses
            if said:
                self.state = f"hears “{said[-1].words}”"
            whole = len(said) >= responses and all(not response.is_active for response in said)
            wanted = sum(len(frame) for response in said for frame in frames(bytes(response.audio)))
            if whole and len(self.call.received_audio) >= wanted and not self.call.player.is_playing(time.monotonic()):
                return True
            gevent.sleep(_POLL_S)
        return False


class DemoRun:
    """One run. `run` holds everything that must end; whatever interrupts it, nothing stays behind."""

    def __init__(self, command: list[str], out: Path, *, calls: int, seconds: float) -> None:
        self.script = Script.lasting(seconds)
        self.callers: list[Caller] = []
        self.step = "starting the gateway"
        self._command = command
        self._out = out
        self.calls = calls

    def run(self) -> Report:
        """Everything, from the gateway's start to the files. Raises GatewayProcessError."""
        began_s = time.monotonic()
        self._out.mkdir(parents=True, exist_ok=True)
        for old in [*self._out.glob("call-*.wav"), self._out / "summary.json", self._out / "latency.png"]:
            old.unlink(missing_ok=True)
        gateway = GatewayProcess(self._command, self._out)
        auth_token = secrets.token_hex(16)
        with (
            AiTwin(lambda index, path: self.script.agent(index)) as voices,
            TwilioTwin(gateway.url, auth_token=auth_token) as telephones,
        ):
            pids: list[int] = []
            try:
                gateway.start(
                    account_sid=telephones.account_sid, auth_token=auth_token, api_base=telephones.rest.url, ai_url=voices.url
                )
                pids = gateway.pids()
                report = self._converse(gateway, telephones, voices)
                self.step = "stopping the gateway"
            finally:
                gateway.stop()
        report = replace(report, seconds=time.monotonic() - began_s, left=len(wait_until_gone(pids, _GONE_S)))
        self.step = "drawing"
        report.write_summary(self._out / "summary.json")
        draw(report, self._out / "latency.png")
        return report

    def _converse(self, gateway: GatewayProcess, telephones: TwilioTwin, voices: AiTwin) -> Report:
        """All calls at once, then what became of them."""
        self.step = "calls"
        self.callers = [Caller(n, self.script, telephones, voices) for n in range(1, self.calls + 1)]
        talking = Group()
        try:
            for caller in self.callers:
                talking.add(gevent.spawn(caller.run))
                gevent.sleep(DIAL_S)
            talking.join(raise_error=True)
        finally:
            talking.kill(timeout=1)
        self.step = "collecting"
        telephones.rest.wait_callbacks(SETTLE_S)
        rows = _rows(AdminClient(gateway.admin_socket), [caller.sid for caller in self.callers])
        results = [self._result(caller, telephones, rows.get(caller.sid) or {}) for caller in self.callers]
        page = _settled_metrics(gateway, sum(result.frames_sent for result in results))
        worst = {name: _worst(rows.values(), name) for name in ("send_max_s", "lateness_max_s")}
        return Report(
            calls=results,
            send=read_histogram(page, "gw_tx_send_seconds", worst["send_max_s"]),
            lateness=read_histogram(page, "gw_tx_lateness_seconds", worst["lateness_max_s"]),
            twin_lateness_ms=_lateness(self.callers),
        )

    def _result(self, caller: Caller, telephones: TwilioTwin, row: dict[str, Any]) -> CallResult:
        """One call's outcome, and its WAV."""
        call, session = caller.call, caller.session
        assert call is not None
        write_wav(self._out / f"call-{caller.number}.wav", call.heard_with_gaps)
        sent = [] if session is None else [frames(bytes(response.audio)) for response in session.responses]
        expected = b"".join(frame for response in sent for frame in response)
        quality, recording = row.get("quality") or {}, row.get("recording") or {}
        return CallResult(
            call_sid=call.call_sid,
            first_audio_ms=None if call.first_heard_ms is None else round(call.first_heard_ms),
            frames_expected=sum(map(len, sent)),
            frames_sent=quality.get("frames_sent") or 0,
            audio_exact=bool(expected) and call.received_audio == expected,
            underrun_ms=quality.get("underrun_ms") or 0,
            recordings_started=sum(start.recorded for start in telephones.rest.starts.get(call.call_sid, [])),
            ended=row.get("reason") or call.error or "unknown",
            ear_gap_ms=round(call.player.underrun_ms),
            recording_state=recording.get("state", "-"),
            recording_trigger_ms=recording.get("trigger_ms"),
            complaints=[
                f"{warned.code} {warned.detail}" for warned in (*call.warnings, *call.notices) if warned.code != _CLOSED_BY_SERVER
            ],
        )


def _rows(admin: AdminClient, sids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the gateway keeps of the calls, once it is all there: the quality, and the recording's last word."""
    rows: dict[str, dict[str, Any]] = {}
    deadline_s = time.monotonic() + SETTLE_S
    for sid in sids:
        while True:
            rows[sid] = admin.request("call", call_sid=sid) or {}
            recorded = (rows[sid].get("recording") or {}).get("state") in ("completed", "absent", "failed")
            if (rows[sid].get("quality") and recorded) or time.monotonic() >= deadline_s:
                break
            gevent.sleep(_POLL_S * 5)
    return rows


def _settled_metrics(gateway: GatewayProcess, frames_sent: int) -> str:
    """The metrics page once it shows every frame; it is rendered once a second."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        page = gateway.metrics()
        if read_histogram(page, "gw_tx_send_seconds", 0.0).total >= frames_sent or time.monotonic() >= deadline_s:
            return page
        gevent.sleep(0.2)


def _worst(rows: Iterable[dict[str, Any]], name: str) -> float:
    return max(((row.get("quality") or {}).get(name) or 0.0 for row in rows), default=0.0)


def _lateness(callers: Iterable[Caller]) -> dict[str, float]:
    """How late the twin itself sent its frames: a late twin makes a gateway look worse than it is."""
    late_s = sorted(late for caller in callers if caller.call is not None for late in caller.call.lateness_s)
    if not late_s:
        return {}
    at = {name: late_s[min(len(late_s) - 1, int(share * len(late_s)))] for name, share in QUANTILES.items()}
    return {name: round(value * 1000, 3) for name, value in {**at, "max": late_s[-1]}.items()}
