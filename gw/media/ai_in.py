"""AI-in: opens AI legs, reads their events, and passes each to the part of the call it concerns.

Audio goes to the downlink, the caller's voice to barge-in, text to the turns, a response's end to its mark. A leg that fails is
replaced, or the call falls back: `gw.media.ai_failover` decides. Audio flows only after the AI confirmed its formats. Never waits
for the phone leg.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import gevent

from gw.call.playout import Outcome
from gw.call.state import Reason, State, ai_reason
from gw.media.ai.leg import AiLegError
from gw.media.ai_failover import AiFailover, lifetime_of
from gw.media.call import Call
from gw.protocol import ai

log = logging.getLogger(__name__)

#: Unreadable events within the time that end the session.
MAX_UNREADABLE: Final = 5
UNREADABLE_S: Final = 10.0


class AiIn:
    """One call's AI-in greenlet."""

    __slots__ = ("_call", "_unreadable_s", "failover")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.failover = AiFailover(call)
        self._unreadable_s: deque[float] = deque(maxlen=MAX_UNREADABLE)  # times of the session's last ones

    def run(self) -> None:
        """Serve one AI leg after another until the call ends or falls back. The greenlet's body."""
        call, failover = self._call, self.failover
        call.restore_conversation()
        try:
            while not call.state.has_ended:
                try:
                    self._open()
                    while not call.state.has_ended:
                        self._dispatch(call.ai.leg.read())
                        failover.check_leg()
                except AiLegError as error:
                    if not failover.replace(error):
                        return
        finally:
            failover.close()

    def _open(self) -> None:
        """Connect the current leg and wait for its confirmation. Raises AiLegError."""
        call = self._call
        limit_s = self.failover.connect_limit_s()
        self._unreadable_s.clear()
        with gevent.Timeout(limit_s, AiLegError(Reason.AI_TIMEOUT, f"the AI did not confirm a session within {limit_s:.2g} s")):
            call.ai.leg.connect()
            while not call.ai.ready and not call.state.has_ended:
                self._dispatch(call.ai.leg.read())
        if not call.state.has_ended:
            self.failover.on_open()

    def _dispatch(self, events: list[ai.AiEvent]) -> None:
        for event in events:
            if self._call.state.has_ended:
                return
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    # -- the session ------------------------------------------------------------------------------------------------------

    def _on_created(self, event: ai.SessionCreated) -> None:
        self.failover.lifetime_s = lifetime_of(event)

    def _on_ready(self, event: ai.SessionReady) -> None:
        self._call.ai.ready = True

    def _on_error(self, event: ai.AiError) -> None:
        call = self._call
        is_benign = event.trouble in ("", "crossed") and not event.fatal
        kind = "benign" if is_benign else "fatal" if event.fatal else "error"
        call.context.cells.ai_errors[kind].add()
        if is_benign:
            call.ai.responses.on_refused()
            return
        if call.events.note("ai_error", code=event.code, message=event.message[:500], fatal=event.fatal):
            log.warning(
                "the AI reports %s: %s", event.code, event.message[:200], extra={"call_sid": call.sid, "code": event.code}
            )
        if event.refuses == "response":
            call.ai.responses.on_failed()
        detail = f"{event.code}: {event.message}"[:500]
        if event.trouble == "rate_limit":
            raise AiLegError(Reason.AI_RATE_LIMITED, detail)
        if event.fatal or not call.ai.ready:
            permanent = event.trouble == "lasting"
            raise AiLegError(Reason.AI_REFUSED, detail, permanent=permanent, expired=event.fatal and not permanent)

    def _on_unreadable(self, event: ai.Unreadable) -> None:
        call = self._call
        call.context.cells.ai_errors["unreadable"].add()
        times_s = self._unreadable_s
        times_s.append(monotonic())
        if len(times_s) == MAX_UNREADABLE and times_s[-1] - times_s[0] < UNREADABLE_S:
            raise AiLegError(ai_reason(event.code), event.detail)
        if len(times_s) > 1:
            return
        call.events.note("ai_unreadable", code=event.code, detail=event.detail)
        log.warning("an event of the AI is skipped: %s", event.detail, extra={"call_sid": call.sid, "code": event.code})

    # -- responses --------------------------------------------------------------------------------------------------------

    def _on_response_started(self, event: ai.ResponseStarted) -> None:
        side = self._call.ai
        side.last_event_s = monotonic()
        side.responses.on_started(event.response_id)
        side.pending_reply.on_started()

    def _on_response_alive(self, event: ai.ResponseAlive) -> None:
        self._call.ai.last_event_s = monotonic()

    def _on_audio(self, event: ai.AudioDelta) -> None:
        call, side, downlink = self._call, self._call.ai, self._call.downlink
        if not side.ready:
            detail = "audio came before the session confirmed mu-law: it may be noise"
            raise AiLegError(Reason.AI_WRONG_FORMAT, detail, permanent=True)
        side.last_event_s = monotonic()
        call.ending.on_voice()
        if side.first_audio_ms < 0:
            side.first_audio_ms = round((side.last_event_s - (side.asked_s or call.events.started_s)) * 1000)
        if downlink.bargein.is_late(event.response_id):
            if downlink.bargein.on_late_audio(event.item_id):
                side.leg.truncate(event.item_id, 0)
            return
        call.report_turns(call.turns.on_agent_audio(event.item_id, call.now_ms()))
        side.on_audio(event.item_id)
        downlink.play(event.response_id, event.item_id, event.audio)
        if side.responses.is_finished(event.response_id):
            downlink.end_response(event.response_id)  # no later event reports this end
        if call.state.now is State.CLOSING:
            call.ending.extend_goodbye()  # a goodbye spoken after the agent hung up

    def _on_response_done(self, event: ai.ResponseDone) -> None:
        call, side = self._call, self._call.ai
        side.last_event_s = monotonic()
        call.downlink.end_response(event.response_id)
        if event.status in ("failed", "incomplete"):
            call.events.note("response_" + event.status, response=event.response_id, detail=event.detail[:500])
        if event.trouble == "rate_limit":
            raise AiLegError(Reason.AI_RATE_LIMITED, event.detail)
        side.pending_reply.on_done(complete=event.status in ("completed", "incomplete"))
        if side.responses.on_done(event.response_id):
            side.create_response("")

    # -- voices and text --------------------------------------------------------------------------------------------------

    def _on_speech_started(self, event: ai.SpeechStarted) -> None:
        self._call.on_speech_started(event.item_id, event.audio_start_ms + self._call.ai.session_began_ms)

    def _on_speech_stopped(self, event: ai.SpeechStopped) -> None:
        self._call.ending.on_voice()
        self._call.ai.pending_reply.on_caller_stopped()

    def _on_caller_transcript(self, event: ai.CallerTranscript) -> None:
        call = self._call
        call.ai.pending_reply.on_caller_text(event.item_id)
        call.report_turns(call.turns.on_caller_text(event.item_id, event.text, call.now_ms()))

    def _on_agent_transcript(self, event: ai.AgentTranscript) -> None:
        call = self._call
        call.report_turns(call.turns.on_agent_text(event.item_id, event.text, call.now_ms()))
        if call.downlink.bargein.is_late(event.response_id):  # cut before the caller heard any of it
            call.report_turns(call.turns.on_interrupted([Outcome(event.item_id, 0, 0, whole=False)]))

    def _on_agent_transcript_delta(self, event: ai.AgentTranscriptDelta) -> None:
        self._call.turns.on_agent_text_delta(event.item_id, event.words)

    def _on_tool_call(self, event: ai.ToolCall) -> None:
        call = self._call
        if not call.events.note("tool_call", name=event.name, arguments=event.arguments[:2000], item=event.item_id):
            return
        if event.name == ai.HANG_UP_TOOL:
            call.ai.leg.tool_output(event.call_id, '{"ok": true}')
            call.ending.finish(Reason.AI_HANGUP, "the agent hung up")
            return
        call.ai.leg.tool_output(event.call_id, '{"error": "this tool is not available"}')
        call.ai.request("", insist=True)


_HANDLERS: Final[dict[type, Callable[[AiIn, Any], None]]] = {
    ai.SessionCreated: AiIn._on_created,
    ai.SessionReady: AiIn._on_ready,
    ai.ResponseStarted: AiIn._on_response_started,
    ai.ResponseAlive: AiIn._on_response_alive,
    ai.AudioDelta: AiIn._on_audio,
    ai.ResponseDone: AiIn._on_response_done,
    ai.SpeechStarted: AiIn._on_speech_started,
    ai.SpeechStopped: AiIn._on_speech_stopped,
    ai.CallerTranscript: AiIn._on_caller_transcript,
    ai.AgentTranscript: AiIn._on_agent_transcript,
    ai.AgentTranscriptDelta: AiIn._on_agent_transcript_delta,
    ai.ToolCall: AiIn._on_tool_call,
    ai.AiError: AiIn._on_error,
    ai.Unreadable: AiIn._on_unreadable,
}
