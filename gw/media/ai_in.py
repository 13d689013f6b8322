"""AI-in: connects the AI leg, reads its events, and puts each where it belongs: audio to playout, the caller's voice to barge-in,
words to the turns, the end of a response to its mark. It never waits for the phone leg.

Audio flows only after the AI confirmed its formats. The caller's audio kept until then goes first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from gw.call.playout import Truncation
from gw.call.state import Reason, State
from gw.media.ai_leg import AiLegError
from gw.media.call import Call
from gw.protocol import ai

log = logging.getLogger(__name__)


class AiIn:
    """One call's AI-in greenlet."""

    __slots__ = ("_call", "_handlers", "_ready")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ready = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            ai.SessionReady: self._on_ready,
            ai.ResponseStarted: self._on_response_started,
            ai.AudioDelta: self._on_audio,
            ai.ResponseDone: self._on_response_done,
            ai.SpeechStarted: self._on_speech_started,
            ai.SpeechStopped: self._on_speech_stopped,
            ai.CallerTranscript: self._on_caller_transcript,
            ai.AgentTranscript: self._on_agent_transcript,
            ai.ToolCall: self._on_tool_call,
            ai.AiError: self._on_error,
        }

    def run(self) -> None:
        """The greenlet's body. Ends with the AI leg or the call."""
        call = self._call
        try:
            self._connect()
            while not call.state.has_ended:
                self._take(call.leg.read())
        except AiLegError as error:
            call.on_ai_gone(error.reason, error.detail)

    def _connect(self) -> None:
        limit_s = self._call.plane.config.media.ai_connect_s
        timeout = gevent.Timeout(limit_s)
        with timeout:
            try:
                self._call.leg.connect()
                while not self._ready and not self._call.state.has_ended:
                    self._take(self._call.leg.read())
            except gevent.Timeout as expired:
                if expired is not timeout:
                    raise
                raise AiLegError(Reason.AI_TIMEOUT, f"the AI did not confirm a session within {limit_s:g} s") from None

    def _take(self, events: list[ai.AiEvent]) -> None:
        for event in events:
            if self._call.state.has_ended:
                return
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)

    # -- the session ----------------------------------------------------------------------------------------------------

    def _on_ready(self, event: ai.SessionReady) -> None:
        if self._ready:
            return  # a later session.updated
        self._ready = True
        call = self._call
        call.on_ai_ready()
        call.uplink.on_ready()
        if call.agent.greeting:
            self._ask(call.agent.greeting)

    def _ask(self, instructions: str) -> None:
        """Ask for a response, now or after the one under way."""
        call = self._call
        if call.responses.want():
            call.last_ai_s = monotonic()
            call.asked_s = call.asked_s or call.last_ai_s
            call.leg.create_response(instructions)

    def _on_error(self, event: ai.AiError) -> None:
        call = self._call
        kind = "benign" if event.benign else "fatal" if event.fatal else "error"
        call.plane.cells.ai_errors[kind].add()
        if event.benign:
            call.responses.on_refused()
            return
        call.note("ai_error", code=event.code, message=event.message[:500], fatal=event.fatal)
        log.warning("the AI reports %s: %s", event.code, event.message[:200], extra={"call_sid": call.sid, "code": event.code})
        if event.refuses_response:
            call.responses.on_failed()
        if event.fatal or not self._ready:
            raise AiLegError(Reason.AI_REFUSED, f"{event.code}: {event.message}"[:500])

    # -- responses ------------------------------------------------------------------------------------------------------

    def _on_response_started(self, event: ai.ResponseStarted) -> None:
        self._call.last_ai_s = monotonic()
        self._call.responses.on_started(event.response_id)

    def _on_audio(self, event: ai.AudioDelta) -> None:
        if not self._ready:
            raise AiLegError(Reason.AI_WRONG_FORMAT, "audio came before the session confirmed mu-law: it may be noise")
        call = self._call
        call.last_ai_s = call.last_voice_s = monotonic()
        if call.ai_first_audio_ms < 0:
            call.ai_first_audio_ms = round((call.last_ai_s - (call.asked_s or call.started_s)) * 1000)
        if call.bargein.is_late(event.response_id):
            if call.bargein.on_late_audio(event.item_id):
                call.leg.truncate(event.item_id, 0)
            return
        call.tell(call.turns.on_agent_audio(event.item_id, call.now_ms()))
        dropped = call.playout.push(event.response_id, event.item_id, event.audio)
        if call.state.now is State.CLOSING:
            call.bound_closing()  # a goodbye that comes after the wish to hang up
        if dropped:
            call.plane.cells.dropped["overrun"].add(dropped)
        call.ai_out.wake()

    def _on_response_done(self, event: ai.ResponseDone) -> None:
        call = self._call
        call.last_ai_s = monotonic()
        call.playout.end_response(event.response_id)
        call.ai_out.wake()
        if event.status in ("failed", "incomplete"):
            call.note("response_" + event.status, response=event.response_id, detail=event.detail[:500])
        if call.responses.on_done(event.response_id):
            call.last_ai_s = monotonic()
            call.leg.create_response("")

    # -- voices and words -----------------------------------------------------------------------------------------------

    def _on_speech_started(self, event: ai.SpeechStarted) -> None:
        self._call.on_speech_started(event.item_id, event.audio_start_ms)

    def _on_speech_stopped(self, event: ai.SpeechStopped) -> None:
        self._call.last_voice_s = monotonic()

    def _on_caller_transcript(self, event: ai.CallerTranscript) -> None:
        self._call.tell(self._call.turns.on_caller_text(event.item_id, event.text, self._call.now_ms()))

    def _on_agent_transcript(self, event: ai.AgentTranscript) -> None:
        call = self._call
        call.tell(call.turns.on_agent_text(event.item_id, event.text, call.now_ms()))
        if call.bargein.is_late(event.response_id):  # cut before any of it was played: settled here, unless it is already
            call.tell(call.turns.on_interrupted([Truncation(event.item_id, 0)]))

    def _on_tool_call(self, event: ai.ToolCall) -> None:
        call = self._call
        call.note("tool_call", name=event.name, arguments=event.arguments[:2000], item=event.item_id)
        if event.name == ai.HANG_UP_TOOL:
            call.leg.tool_output(event.call_id, '{"ok": true}')
            call.finish(Reason.AI_HANGUP, "the agent hung up")
            return
        call.leg.tool_output(event.call_id, '{"error": "this tool is not available"}')
        self._ask("")
