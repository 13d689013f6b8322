"""AI-in: reads the AI's events, and puts each where it belongs: audio to playout, the caller's voice to barge-in,
words to the turns, the end of a response to its mark. It never waits for the phone leg.

Which leg is read, and what happens when it fails, is `gw.media.ai_failover`'s. Audio flows only after the AI confirmed its formats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gw.call.playout import Truncation
from gw.call.state import Reason, State
from gw.media.ai.leg import AiLegError
from gw.media.ai_failover import AiFailover, lifetime_of
from gw.media.call import Call
from gw.protocol import ai

log = logging.getLogger(__name__)


class AiIn:
    """One call's AI-in greenlet."""

    __slots__ = ("_call", "failover")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.failover = AiFailover(call)

    def run(self) -> None:
        """The greenlet's body. Ends with the call, or when it falls back."""
        self.failover.run(self._take)

    def _take(self, events: list[ai.AiEvent]) -> None:
        for event in events:
            if self._call.state.has_ended:
                return
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    # -- the session ----------------------------------------------------------------------------------------------------

    def _on_created(self, event: ai.SessionCreated) -> None:
        self.failover.on_created(lifetime_of(event))

    def _on_ready(self, event: ai.SessionReady) -> None:
        self.failover.ready = True  # a later session.updated says nothing new

    def _on_error(self, event: ai.AiError) -> None:
        call = self._call
        kind = "benign" if event.benign else "fatal" if event.fatal else "error"
        call.context.cells.ai_errors[kind].add()
        if event.benign:
            call.responses.on_refused()
            return
        call.note("ai_error", code=event.code, message=event.message[:500], fatal=event.fatal)
        log.warning("the AI reports %s: %s", event.code, event.message[:200], extra={"call_sid": call.sid, "code": event.code})
        if event.refuses_response:
            call.responses.on_failed()
        if event.rate_limited:
            raise AiLegError(Reason.AI_RATE_LIMITED, f"{event.code}: {event.message}"[:500])
        if event.fatal or not self.failover.ready:
            raise AiLegError(
                Reason.AI_REFUSED,
                f"{event.code}: {event.message}"[:500],
                permanent=event.permanent,
                expired=event.fatal and not event.permanent,
            )

    # -- responses ------------------------------------------------------------------------------------------------------

    def _on_response_started(self, event: ai.ResponseStarted) -> None:
        self._call.last_ai_s = monotonic()
        self._call.responses.on_started(event.response_id)
        self._call.pending_reply.on_started()

    def _on_audio(self, event: ai.AudioDelta) -> None:
        if not self.failover.ready:
            detail = "audio came before the session confirmed mu-law: it may be noise"
            raise AiLegError(Reason.AI_WRONG_FORMAT, detail, permanent=True)
        call = self._call
        call.last_ai_s = call.last_voice_s = monotonic()
        if call.ai_first_audio_ms < 0:
            call.ai_first_audio_ms = round((call.last_ai_s - (call.asked_s or call.started_s)) * 1000)
        if call.bargein.is_late(event.response_id):
            if call.bargein.on_late_audio(event.item_id):
                call.leg.truncate(event.item_id, 0)
            return
        call.report_turns(call.turns.on_agent_audio(event.item_id, call.now_ms()))
        call.pending_reply.on_audio()
        call.item_came(event.item_id)
        dropped = call.playout.push(event.response_id, event.item_id, event.audio)
        if call.responses.is_finished(event.response_id):
            call.playout.end_response(event.response_id)  # nobody else will say that this is all
        if call.state.now is State.CLOSING:
            call.bound_closing()  # a goodbye that comes after the wish to hang up
        if dropped:
            call.context.cells.dropped["overrun"].add(dropped)
        call.ai_out.wake()

    def _on_response_done(self, event: ai.ResponseDone) -> None:
        call = self._call
        call.last_ai_s = monotonic()
        call.playout.end_response(event.response_id)
        call.ai_out.wake()
        if event.status in ("failed", "incomplete"):
            call.note("response_" + event.status, response=event.response_id, detail=event.detail[:500])
        if event.rate_limited:
            raise AiLegError(Reason.AI_RATE_LIMITED, event.detail)
        call.pending_reply.on_done(complete=event.status in ("completed", "incomplete"))
        if call.responses.on_done(event.response_id):
            call.last_ai_s = monotonic()
            call.pending_reply.on_requested("")
            call.leg.create_response("")

    # -- voices and words -----------------------------------------------------------------------------------------------

    def _on_speech_started(self, event: ai.SpeechStarted) -> None:
        self._call.on_speech_started(event.item_id, event.audio_start_ms + self._call.session_began_ms)

    def _on_speech_stopped(self, event: ai.SpeechStopped) -> None:
        self._call.last_voice_s = monotonic()
        self._call.pending_reply.on_caller_stopped()

    def _on_caller_transcript(self, event: ai.CallerTranscript) -> None:
        self._call.pending_reply.on_caller_text(event.item_id)
        self._call.report_turns(self._call.turns.on_caller_text(event.item_id, event.text, self._call.now_ms()))

    def _on_agent_transcript(self, event: ai.AgentTranscript) -> None:
        call = self._call
        call.report_turns(call.turns.on_agent_text(event.item_id, event.text, call.now_ms()))
        if call.bargein.is_late(event.response_id):  # cut before any of it was played: settled here, unless it is already
            call.report_turns(call.turns.on_interrupted([Truncation(event.item_id, 0)]))

    def _on_agent_text_delta(self, event: ai.AgentTranscriptDelta) -> None:
        self._call.turns.on_agent_text_delta(event.item_id, event.words)

    def _on_tool_call(self, event: ai.ToolCall) -> None:
        call = self._call
        call.note("tool_call", name=event.name, arguments=event.arguments[:2000], item=event.item_id)
        if event.name == ai.HANG_UP_TOOL:
            call.leg.tool_output(event.call_id, '{"ok": true}')
            call.finish(Reason.AI_HANGUP, "the agent hung up")
            return
        call.leg.tool_output(event.call_id, '{"error": "this tool is not available"}')
        call.ask("", insist=True)


_HANDLERS: Final[dict[type, Callable[[AiIn, Any], None]]] = {
    ai.SessionCreated: AiIn._on_created,
    ai.SessionReady: AiIn._on_ready,
    ai.ResponseStarted: AiIn._on_response_started,
    ai.AudioDelta: AiIn._on_audio,
    ai.ResponseDone: AiIn._on_response_done,
    ai.SpeechStarted: AiIn._on_speech_started,
    ai.SpeechStopped: AiIn._on_speech_stopped,
    ai.CallerTranscript: AiIn._on_caller_transcript,
    ai.AgentTranscript: AiIn._on_agent_transcript,
    ai.AgentTranscriptDelta: AiIn._on_agent_text_delta,
    ai.ToolCall: AiIn._on_tool_call,
    ai.AiError: AiIn._on_error,
}
