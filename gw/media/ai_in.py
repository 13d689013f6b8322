"""AI-in: opens AI legs, reads their events, and translates each for the dialogue and for the part of the call it concerns.

Audio goes to the downlink, text to the turns, what happened to the dialogue, which decides what follows. Audio flows only after
the AI confirmed its formats. Never waits for the phone leg.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import gevent

from gw.call.audio.playout import Outcome
from gw.call.backchannel import is_meaningful
from gw.call.dialogue import inputs as given
from gw.call.dialogue.facts import NEVER
from gw.call.dialogue.inputs import Trouble
from gw.call.state import Reason, ai_reason
from gw.media.ai.leg import AiLegError
from gw.media.ai.successor import lifetime_ms_of
from gw.media.call import Call
from gw.media.hub.clock import turn_loop
from gw.protocol import ai
from gw.protocol.audio import BYTES_PER_MS

log = logging.getLogger(__name__)

#: AI-in's own bound on opening a leg, beyond the dialogue's.
_GRACE_S: Final = 0.05
#: Events handled in one slice of the hub's time: one that interrupts the agent takes 0.1 ms.
_SLICE_EVENTS: Final = 8

_TROUBLES: Final[dict[ai.Trouble, Trouble]] = {
    "": Trouble.NONE,
    "passing": Trouble.PASSING,
    "lasting": Trouble.LASTING,
    "rate_limit": Trouble.RATE_LIMIT,
    "crossed": Trouble.CROSSED,
}


class AiIn:
    """One call's AI-in greenlet."""

    __slots__ = ("_backchannels", "_call", "_expires_at", "_ignored", "_untranscribed")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._backchannels = frozenset(call.agent.turns.backchannels)
        self._expires_at = 0.0
        self._ignored = ""  # the caller's last turn whose start was ignored
        self._untranscribed = False  # a failed transcription was noted

    def run(self) -> None:
        """Serve one AI leg after another while one is wanted. The greenlet's body."""
        call, side = self._call, self._call.ai
        call.restore_conversation()
        try:
            while side.is_wanted and not call.state.has_ended:
                number = side.number
                try:
                    self._open()
                    while side.number == number and side.is_wanted and not call.state.has_ended:
                        self._dispatch(side.leg.read(), number)
                except AiLegError as error:
                    if side.number == number and side.is_wanted:
                        self._report(error)
        finally:
            side.drop_successor()
            if side.warm is not None:
                side.warm.drop("unused")

    def _open(self) -> None:
        """Wait until the leg in place is to be opened, and connect it; take over a successor that is open. Raises AiLegError."""
        call, side = self._call, self._call.ai
        at_s, side.open_s = side.open_s, None
        warm, side.warm = side.warm, None
        if warm is not None:
            number = side.number
            lifetime_ms = warm.take(call.dialogue.open_limit_s())
            if side.number != number or not side.is_wanted:
                return  # this leg was replaced or given up meanwhile, and is closed
            if lifetime_ms is not None:
                call.dialogue.on(given.SessionReady(lifetime_ms))
            elif not call.state.has_ended:
                side.reopen(monotonic())
            return
        if at_s is not None:
            call.ending.over.wait(max(0.0, at_s - monotonic()))
            if call.state.has_ended or side.open_s is not None or not side.is_wanted:
                return  # the call ended, or this leg was replaced or given up, during the pause
            limit_s = call.dialogue.open_limit_s()
            leg, self._expires_at = side.leg, 0.0
            late = AiLegError(Reason.AI_TIMEOUT, f"the AI did not confirm a session within {limit_s:.2g} s")
            try:
                with gevent.Timeout(limit_s + _GRACE_S, late):
                    leg.connect()
            finally:
                if side.leg is not leg:
                    leg.close()  # given up meanwhile
        elif side.successor is not None and side.successor.greenlet is not None:
            waiting, side.successor = side.successor.greenlet, None
            waiting.join(1.0)

    def _report(self, error: AiLegError) -> None:
        """Report the failure of the leg in place."""
        trouble = Trouble.LASTING if error.permanent else Trouble.PASSING
        if error.reason is Reason.AI_RATE_LIMITED:
            trouble = Trouble.RATE_LIMIT
        lost = given.SessionLost(error.reason, trouble, error.wait_ms)
        self._call.dialogue.lose_session(lost, error.detail, is_expired=error.expired)

    def _dispatch(self, events: list[ai.AiEvent], number: int) -> None:
        call, side, machine = self._call, self._call.ai, self._call.dialogue.machine
        for count, event in enumerate(events, 1):
            if call.state.has_ended or side.number != number or not side.is_wanted:
                return
            handler = _HANDLERS.get(type(event))
            if machine.silent_by != NEVER:
                call.dialogue.on(given.Alive())
            if handler is not None and (machine.is_ready or type(event) in _BEFORE_READY):
                handler(self, event)
            if count % _SLICE_EVENTS == 0:
                turn_loop()

    # -- the session ------------------------------------------------------------------------------------------------------

    def _on_created(self, event: ai.SessionCreated) -> None:
        self._expires_at = event.expires_at

    def _on_ready(self, _: ai.SessionReady) -> None:
        self._call.dialogue.on(given.SessionReady(lifetime_ms_of(self._expires_at)))

    def _on_error(self, event: ai.AiError) -> None:
        call = self._call
        trouble, is_refusal = _TROUBLES[event.trouble], event.refuses == "response" or event.trouble == "crossed"
        is_lost = event.fatal or event.refuses == "session" or (event.trouble == "lasting" and not is_refusal)
        is_lost = is_lost or not (call.dialogue.machine.is_ready or event.trouble == "")
        kind = "fatal" if is_lost else "benign" if event.trouble in ("", "crossed") and not is_refusal else "error"
        call.context.cells.ai_errors[kind].add()
        detail = call.dialogue.detail = f"{event.code}: {event.message}"[:500]
        is_news = kind != "benign" and event.trouble != "crossed"
        if is_news and call.events.note("ai_error", code=event.code, message=event.message[:500], fatal=is_lost):
            log.warning("the AI reports %s", detail[:200], extra={"call_sid": call.sid, "code": event.code})
        if is_lost:
            reason = Reason.AI_RATE_LIMITED if trouble is Trouble.RATE_LIMIT else Reason.AI_REFUSED
            is_expired = event.fatal and event.trouble == "passing"
            call.dialogue.lose_session(given.SessionLost(reason, trouble, event.wait_ms), detail, is_expired=is_expired)
        elif is_refusal or trouble is Trouble.RATE_LIMIT:
            call.dialogue.on(given.CreateRefused(trouble, event.wait_ms))

    def _on_token_limit(self, event: ai.TokenLimit) -> None:
        self._call.context.token_minutes[self._call.agent.model].on_limit(event, monotonic())

    def _on_unreadable(self, event: ai.Unreadable) -> None:
        call = self._call
        call.context.cells.ai_errors["unreadable"].add()
        call.dialogue.detail = event.detail
        call.dialogue.on(given.Unreadable(ai_reason(event.code)))

    # -- responses --------------------------------------------------------------------------------------------------------

    def _response_of(self, response_id: str) -> str:
        """An AI that leaves the identifier out means the response under way."""
        return response_id or self._call.dialogue.machine.response_id

    def _on_response_started(self, event: ai.ResponseStarted) -> None:
        self._call.ai.on_requested()
        self._call.dialogue.on(given.ResponseStarted(event.response_id))

    def _on_alive(self, _: ai.ResponseAlive) -> None:
        self._call.dialogue.keep_alive()

    def _on_audio(self, event: ai.AudioDelta) -> None:
        call, side, downlink, machine = self._call, self._call.ai, self._call.downlink, self._call.dialogue.machine
        if not machine.is_ready:  # before the formats are confirmed it may be noise
            self._on_unreadable(ai.Unreadable("wrong_format", "audio came before the session was confirmed"))
            return
        now_s = monotonic()
        if side.first_audio_ms < 0:
            side.first_audio_ms = round((now_s - (side.asked_s or call.events.started_s)) * 1000)
        response_id = event.response_id or machine.response_id
        queued_ms = round(downlink.queued_s(now_s) * 1000) + len(event.audio) // BYTES_PER_MS
        if not call.dialogue.may_play(response_id, queued_ms, event.item_id):
            if side.on_dropped_audio(event.item_id):
                call.report_turns(call.turns.on_interrupted([Outcome(event.item_id, 0, 0, whole=False)]))
            return
        if side.is_new_item(event.item_id):
            call.report_turns(call.turns.on_agent_audio(event.item_id, call.now_ms()))
        if call.first_word_ms < 0:
            call.on_first_word(now_s)
        downlink.play(response_id, event.item_id, event.audio)
        if response_id != machine.response_id:
            downlink.end_response(response_id)  # it has ended: no later event reports this end

    def _on_response_done(self, event: ai.ResponseDone) -> None:
        call, response_id = self._call, self._response_of(event.response_id)
        call.downlink.end_response(response_id)
        call.dialogue.detail = event.detail or ("" if event.status == "completed" else event.status)
        if event.status in ("failed", "incomplete"):
            call.events.note("response_" + event.status, response=response_id, detail=event.detail[:500])
        call.on_tokens(call.agent.model, event.tokens)
        done = given.ResponseDone(response_id, event.status == "completed", _TROUBLES[event.trouble], event.wait_ms)
        call.dialogue.on(done)

    # -- voices and text --------------------------------------------------------------------------------------------------

    def _on_speech_started(self, event: ai.SpeechStarted) -> None:
        """More interruptions than a caller can cause are ignored and counted: each may cost a `clear` and a truncation."""
        call = self._call
        if call.events.may_emit("interruption"):
            start_ms = event.audio_start_ms + call.ai.session_began_ms
            call.report_turns(call.turns.on_caller_speech(event.item_id, start_ms))
            call.dialogue.on(given.SpeechStarted(event.item_id))
        else:
            self._ignored = event.item_id

    def _on_speech_stopped(self, event: ai.SpeechStopped) -> None:
        if event.item_id == self._ignored:
            return
        self._call.dialogue.on(given.SpeechStopped(event.item_id))

    def _on_caller_transcript(self, event: ai.CallerTranscript) -> None:
        call = self._call
        call.report_turns(call.turns.on_caller_text(event.item_id, event.text, call.now_ms()))
        call.on_tokens(call.agent.transcription_model, event.tokens)
        call.dialogue.on(given.CallerText(event.item_id, is_meaningful(event.text, self._backchannels)))

    def _on_transcript_failed(self, event: ai.CallerTranscriptFailed) -> None:
        """The turn is kept without its words. Noted once: a model that is not there fails every time."""
        call = self._call
        call.report_turns(call.turns.on_caller_text_failed(event.item_id, call.now_ms()))
        if not self._untranscribed:
            self._untranscribed = True
            call.events.note("transcription_failed", code=event.code, message=event.message[:500])
            detail = f"{event.code}: {event.message}"[:200]
            log.warning("the caller's words cannot be transcribed: %s", detail, extra={"call_sid": call.sid})

    def _on_agent_transcript(self, event: ai.AgentTranscript) -> None:
        call = self._call
        is_unplayed = not call.turns.is_open(event.item_id)
        call.report_turns(call.turns.on_agent_text(event.item_id, event.text, call.now_ms()))
        if is_unplayed and self._response_of(event.response_id) in call.dialogue.machine.dropped:  # nothing of it is heard
            call.report_turns(call.turns.on_interrupted([Outcome(event.item_id, 0, 0, whole=False)]))

    def _on_agent_transcript_delta(self, event: ai.AgentTranscriptDelta) -> None:
        self._call.turns.on_agent_text_delta(event.item_id, event.words)
        self._call.dialogue.keep_alive()

    def _on_tool_call(self, event: ai.ToolCall) -> None:
        call = self._call
        call.dialogue.on(call.tools.take(event, self._response_of(event.response_id)))

    # -- remote MCP servers -----------------------------------------------------------------------------------------------

    def _on_mcp_call(self, event: ai.McpCall) -> None:
        call = self._call
        call.dialogue.on(call.tools.take_mcp(event, self._response_of(event.response_id)))

    def _on_mcp_done(self, event: ai.McpCallDone) -> None:
        settled = self._call.tools.on_mcp_done(event)
        if settled is not None:
            self._call.dialogue.on(settled)

    def _on_mcp_approval(self, event: ai.McpApproval) -> None:
        call = self._call
        approves = any(one.server_label == event.server_label and event.name in one.approve for one in call.agent.mcp)
        call.events.note("mcp_approval", name=event.name[:64], server=event.server_label[:64], approved=approves)
        if not approves:
            log.warning("the MCP tool %s is not approved", event.name[:64], extra={"call_sid": call.sid})
        call.ai.approve_mcp(event.item_id, approves=approves)
        call.dialogue.on(call.tools.take_mcp(event, self._response_of(event.response_id)))

    def _on_mcp_list_failed(self, _: ai.McpListFailed) -> None:
        call = self._call
        if call.events.note("mcp_list_failed"):
            log.warning("the tools of an MCP server cannot be listed: the agent has none of them", extra={"call_sid": call.sid})


_HANDLERS: Final[dict[type, Callable[[AiIn, Any], None]]] = {
    ai.SessionCreated: AiIn._on_created,
    ai.SessionReady: AiIn._on_ready,
    ai.ResponseStarted: AiIn._on_response_started,
    ai.ResponseAlive: AiIn._on_alive,
    ai.AudioDelta: AiIn._on_audio,
    ai.ResponseDone: AiIn._on_response_done,
    ai.SpeechStarted: AiIn._on_speech_started,
    ai.SpeechStopped: AiIn._on_speech_stopped,
    ai.CallerTranscript: AiIn._on_caller_transcript,
    ai.CallerTranscriptFailed: AiIn._on_transcript_failed,
    ai.AgentTranscript: AiIn._on_agent_transcript,
    ai.AgentTranscriptDelta: AiIn._on_agent_transcript_delta,
    ai.ToolCall: AiIn._on_tool_call,
    ai.McpCall: AiIn._on_mcp_call,
    ai.McpCallDone: AiIn._on_mcp_done,
    ai.McpApproval: AiIn._on_mcp_approval,
    ai.McpListFailed: AiIn._on_mcp_list_failed,
    ai.TokenLimit: AiIn._on_token_limit,
    ai.AiError: AiIn._on_error,
    ai.Unreadable: AiIn._on_unreadable,
}

#: Events of a session that is not confirmed. No other one can belong to this conversation.
_BEFORE_READY: Final = frozenset({ai.SessionCreated, ai.SessionReady, ai.AiError, ai.Unreadable, ai.AudioDelta})
