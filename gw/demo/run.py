"""Conversation of the demo: callers at the Twilio twin, agents at the AI twin, a tool of a user's, a gateway between them.

A caller waits until the agent has been heard to its end, then speaks the next phrase; after the last exchange the agent speaks
the goodbye and hangs up. Every third agent looks something up before its first answer, at an endpoint in this process. No one
interrupts, so the caller must receive the AI's audio byte for byte. Results come from the twins' own records, the gateway's store
and its `/metrics`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.pool import Group

from gw.bench.gateway_process import GatewayProcess, wait_until_gone
from gw.bench.histogram import QUANTILES, read_histogram
from gw.bench.pictures import see
from gw.control.admin.client import AdminClient
from gw.demo.report import CallResult, DemoReport, draw
from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, conversation
from gw.twin.ai.server import AiTwin
from gw.twin.hooks import HookTwin
from gw.twin.polling import wait_until
from gw.twin.sound import RATE_HZ, frames, write_wav
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall

#: Pause between the agent's last word and the caller's first.
PAUSE_S: Final = 0.3
#: From the caller's last word to the agent's first: 500 ms of silence that end a turn, and the way there and back.
ANSWER_S: Final = 0.7
#: Between two calls: telephones do not ring in the same microsecond.
DIAL_S: Final = 0.05
#: For far ends and store to finish after the last call.
SETTLE_S: Final = 8.0
_POLL_S: Final = 0.02
_LOOK_S: Final = 0.1
#: The debugger's entry for every stream closed by the gateway, intended or not; the call's reason judges its end.
_CLOSED_BY_SERVER: Final = 31921
#: Bound on the end of processes whose parent waited for them.
_GONE_S: Final = 2.0
_ANSWERS: Final = ("connecting", "first-in-line", "nobody-available")
_GREETING, _GOODBYE = "hello-world", "thanks"
#: Every third agent calls the tool, in a response without words.
TOOL: Final = "find_party"
_TOOL_EVERY: Final = 3
#: The answer with the result of the tool.
_FOUND: Final = "hold-on"
_WORDLESS: Final = 2


@dataclass(frozen=True)
class DemoScript:
    """A conversation: greeting, `exchanges` times caller and agent, then the goodbye."""

    exchanges: int

    @classmethod
    def lasting(cls, seconds: float) -> DemoScript:
        """Return the shortest conversation of at least that length; the goodbye alone takes four seconds."""
        script = cls(0)
        while script.seconds < seconds:
            script = cls(script.exchanges + 1)
        return script

    @property
    def seconds(self) -> float:
        """Approximate duration."""
        phrases = [_GREETING, _GOODBYE] if self.exchanges else [_GOODBYE]
        phrases += [_ANSWERS[n % len(_ANSWERS)] for n in range(self.exchanges - 1)]
        phrases += [self.phrase(0, n) for n in range(self.exchanges)]
        return sum(len(speech.load(name)) for name in phrases) / RATE_HZ + self.exchanges * (PAUSE_S + ANSWER_S)

    @property
    def responses(self) -> int:
        """Number of the agent's responses, greeting and goodbye included."""
        return self.exchanges + 1

    def phrase(self, caller: int, n: int) -> str:
        """Return the phrase of a caller in exchange `n`; neighbours speak different ones."""
        return speech.CALLER_PHRASES[(caller + n) % len(speech.CALLER_PHRASES)]

    def agent(self, session: int) -> AiScript:
        """Return the AI's script in this session, with its own sequence and chunks."""
        rotated = [_ANSWERS[(session + n) % len(_ANSWERS)] for n in range(len(_ANSWERS))]
        names = [rotated[n % len(rotated)] for n in range(max(1, self.exchanges - 1))]
        words = [speech.WORDS[_GREETING], *(speech.WORDS[name] for name in names[: self.exchanges - 1]), speech.WORDS[_GOODBYE]]
        script = replace(
            conversation(seed=session, hang_up_after=self.responses),
            answers=tuple(speech.load(name) for name in names),
            agent_words=tuple(words),
        )
        if session % _TOOL_EVERY != 1 or not self.exchanges:
            return script
        found = (_FOUND,) if self.exchanges > 1 else ()  # with one exchange the goodbye follows the lookup
        return replace(
            script,
            hang_up_after=self.responses + 1,
            answers=(b"", *(speech.load(name) for name in (*found, *names[1:]))),
            agent_words=(words[0], "", *(speech.WORDS[name] for name in found), *words[1 + len(found) :]),
            calls={_WORDLESS: (Call(TOOL, '{"party": "weasels"}', pieces=3),)},
        )


class DemoCaller:
    """One telephone. `state` describes its current act, for the progress display."""

    def __init__(self, number: int, script: DemoScript, twilio: TwilioTwin, ai: AiTwin) -> None:
        self.number = number
        self.state = "rings"
        self.script = script
        self._twilio = twilio
        self._ai = ai
        self.call: TwinCall | None = None

    @property
    def session(self) -> AiLedger | None:
        """The AI's end of this call, found by the inaudible tag in its audio."""
        return None if self.call is None else self._ai.session_of(self.call.number)

    @property
    def sid(self) -> str:
        return "" if self.call is None else self.call.call_sid

    @property
    def heard_s(self) -> float:
        """Seconds of the agent's speech heard so far."""
        return 0.0 if self.call is None else len(self.call.received_audio) / RATE_HZ

    def run(self) -> None:
        """Call, talk, and wait until the agent hangs up. Bounded by the plan's `max_s`."""
        max_s = self.script.seconds * 2 + 15
        self.call = self._twilio.place_call(hang_up=False, max_s=max_s, from_number=f"+1500555{self.number:04}")
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
        """Wait until `responses` responses were sent and heard to their end. Returns False if the call ended before."""
        assert self.call is not None
        while not self.call.is_over:
            session = self.session
            sent = [] if session is None else [one for one in session.responses if one.intended]
            if sent:
                self.state = f"hears “{sent[-1].words}”"
            whole = len(sent) >= responses and all(not response.is_active for response in sent)
            wanted = sum(len(frame) for response in sent for frame in frames(bytes(response.audio)))
            if whole and len(self.call.received_audio) >= wanted and not self.call.player.is_playing(time.monotonic()):
                return True
            gevent.sleep(_POLL_S)
        return False


class DemoRun:
    """One run of the demo. Everything started by `run` ends with it, even if interrupted."""

    def __init__(self, command: list[str], out: Path, *, calls: int, seconds: float) -> None:
        self.script = DemoScript.lasting(seconds)
        self.callers: list[DemoCaller] = []
        self.step = "starting the gateway"
        self.picture = ""  # where it is
        self._command = command
        self._out = out
        self.calls = calls

    def run(self) -> DemoReport:
        """Run from the gateway's start to the written files. Raises GatewayProcessError."""
        began_s = time.monotonic()
        self._out.mkdir(parents=True, exist_ok=True)
        for old in [*self._out.glob("call-*.wav"), self._out / "summary.json", self._out / "latency.png"]:
            old.unlink(missing_ok=True)
        auth_token, hook_secret = secrets.token_hex(16), secrets.token_hex(16)
        with HookTwin(hook_secret, reply=lambda request: b'{"extension": 12}') as hooks:
            report, pids = self._run_gateway(GatewayProcess(self._command, self._out, _settings(hooks)), auth_token, hook_secret)
        report = replace(report, seconds=time.monotonic() - began_s, left=len(wait_until_gone(pids, _GONE_S)))
        self.step = "drawing"
        report.write_summary(self._out / "summary.json")
        self.picture = see(partial(draw, report), self._out / "latency.png")
        return report

    def _run_gateway(self, gateway: GatewayProcess, auth_token: str, hook_secret: str) -> tuple[DemoReport, list[int]]:
        """Hold the calls on a gateway. Returns the report, and the gateway's processes, which have been stopped."""
        with AiTwin(lambda index, path: self.script.agent(index)) as ai, TwilioTwin(gateway.url, auth_token=auth_token) as twilio:
            pids: list[int] = []
            try:
                gateway.start(
                    account_sid=twilio.account_sid,
                    auth_token=auth_token,
                    api_base=twilio.rest.url,
                    ai_url=ai.url,
                    hook_secret=hook_secret,
                )
                pids = gateway.pids()
                report = self._converse(gateway, twilio, ai)
                self.step = "stopping the gateway"
            finally:
                gateway.stop()
        return report, pids

    def _converse(self, gateway: GatewayProcess, twilio: TwilioTwin, ai: AiTwin) -> DemoReport:
        """Place all calls, wait for their end, and collect their results."""
        self.step = "calls"
        self.callers = [DemoCaller(n, self.script, twilio, ai) for n in range(1, self.calls + 1)]
        talking = Group()
        try:
            for caller in self.callers:
                talking.add(gevent.spawn(caller.run))
                gevent.sleep(DIAL_S)
            talking.join(raise_error=True)
        finally:
            talking.kill(timeout=1)
        self.step = "collecting"
        twilio.rest.wait_callbacks(SETTLE_S)
        rows = _rows(AdminClient(gateway.admin_socket), [caller.sid for caller in self.callers])
        results = [self._result(caller, twilio, rows.get(caller.sid) or {}) for caller in self.callers]
        page = _settled_metrics(gateway, sum(result.frames_sent for result in results))
        worst = {name: _worst(rows.values(), name) for name in ("send_max_s", "lateness_max_s")}
        return DemoReport(
            calls=results,
            send=read_histogram(page, "gw_tx_send_seconds", worst["send_max_s"]),
            lateness=read_histogram(page, "gw_tx_lateness_seconds", worst["lateness_max_s"]),
            twin_lateness_ms=_lateness(self.callers),
        )

    def _result(self, caller: DemoCaller, twilio: TwilioTwin, row: dict[str, Any]) -> CallResult:
        """Collect one call's result, and write its WAV."""
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
            recordings_started=sum(start.recorded for start in twilio.rest.starts.get(call.call_sid, [])),
            ended=row.get("reason") or call.error or "unknown",
            ear_gap_ms=round(call.player.underrun_ms),
            recording_state=recording.get("state", "-"),
            recording_trigger_ms=recording.get("trigger_ms"),
            tools=[_tool_text(event["data"]) for event in row.get("events") or [] if _is_tool(event)],
            tools_wanted=0 if session is None else sum(one.name == TOOL for one in session.calls),
            complaints=[
                f"{warned.code} {warned.detail}" for warned in (*call.warnings, *call.notices) if warned.code != _CLOSED_BY_SERVER
            ],
        )


def _settings(hooks: HookTwin) -> dict[str, str]:
    """Return the tool's part of the configuration."""
    return {
        "agents.default": f'tools = ["hang_up", "{TOOL}"]\n',
        "hooks": f'allow_networks = ["{hooks.address[0]}/32"]\n',
        f"tools.{TOOL}": f'description = "Finds the extension of a party."\nurl = "{hooks.url(f"ok/{TOOL}")}"\n',
    }


def _is_tool(event: dict[str, Any]) -> bool:
    return event.get("kind") == "tool_called" and event["data"].get("tool") == TOOL


def _tool_text(data: dict[str, Any]) -> str:
    return f"{data.get('tool')} {data.get('status')}, {data.get('ms')} ms"


def _rows(admin: AdminClient, sids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the calls' rows, once each has its quality report and its recording's final state."""
    rows: dict[str, dict[str, Any]] = {}

    def is_final(sid: str) -> bool:
        row = rows[sid] = admin.request("call", call_sid=sid) or {}
        return bool(row.get("quality")) and (row.get("recording") or {}).get("state") in ("completed", "absent", "failed")

    deadline_s = time.monotonic() + SETTLE_S
    for sid in sids:
        wait_until(partial(is_final, sid), deadline_s - time.monotonic(), _LOOK_S)
    return rows


def _settled_metrics(gateway: GatewayProcess, frames_sent: int) -> str:
    """Read the metrics page once it counts every frame; it is rendered once a second."""
    page = ""

    def is_settled() -> bool:
        nonlocal page
        page = gateway.metrics()
        return read_histogram(page, "gw_tx_send_seconds", 0.0).total >= frames_sent

    wait_until(is_settled, SETTLE_S, _LOOK_S)
    return page


def _worst(rows: Iterable[dict[str, Any]], name: str) -> float:
    return max(((row.get("quality") or {}).get(name) or 0.0 for row in rows), default=0.0)


def _lateness(callers: Iterable[DemoCaller]) -> dict[str, float]:
    """Lateness of the twin's own frames: a late twin makes the gateway look worse than it is."""
    late_s = sorted(late for caller in callers if caller.call is not None for late in caller.call.lateness_s)
    if not late_s:
        return {}
    at = {name: late_s[min(len(late_s) - 1, int(share * len(late_s)))] for name, share in QUANTILES.items()}
    return {name: round(value * 1000, 3) for name, value in {**at, "max": late_s[-1]}.items()}
