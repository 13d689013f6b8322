"""Responses of an AI session: one at a time, audio in deltas, until completed or cancelled.

A response carries the events of OpenAI Realtime and ends as there; a fault strikes at the delta that the script names. One
greenlet sends a response's audio.
"""

from __future__ import annotations

import base64
import json
import time

import gevent

from gw.twin.ai import events
from gw.twin.ai.ledger import AiLedger, Delta, SentResponse
from gw.twin.ai.script import RESPONSE_FAULTS, AiScript
from gw.twin.ai.sender import EventSender


class AiVoice:
    """One session's responses."""

    def __init__(self, sender: EventSender, ledger: AiLedger, script: AiScript) -> None:
        self._sender = sender
        self._ledger = ledger
        self._script = script
        self.active: SentResponse | None = None

    def respond(self, asked: bool) -> None:
        """Begin a response; a greenlet sends its audio."""
        if self._ledger.ready_s is None:
            self._ledger.violations.append("a response asked for before session.updated")
        number, script = len(self._ledger.responses) + 1, self._script
        words = script.agent_words[(number - 1) % len(script.agent_words)] if script.agent_words else ""
        sent = SentResponse(
            number=number,
            response_id=self._sender.ids.new("resp"),
            item_id=self._sender.ids.new("item"),
            asked=asked,
            intended=script.audio_of(number, asked),
            words=words,
            created_s=time.monotonic(),
        )
        self._ledger.responses.append(sent)
        self.active = sent
        for event in events.opening(sent):
            self._sender.send(event)
        self._sender.send_later(script.thinking_s, self._speak, sent)

    def _speak(self, sent: SentResponse) -> None:
        script, index = self._script, self._ledger.index
        chunks = script.chunks(sent.intended, index, sent.number)
        breaks = script.fault in RESPONSE_FAULTS and script.fault_response == sent.number
        for place, (chunk, pause_s) in enumerate(zip(chunks, script.pauses_s(chunks, index, sent.number), strict=True)):
            if not sent.is_active:
                return
            if breaks and place == script.fault_deltas:
                self._sender.play_fault(sent)
            sent.audio += chunk
            sent.deltas.append(Delta(time.monotonic(), len(chunk)))
            self._sender.send(events.audio_delta(sent, base64.b64encode(chunk).decode()))
            if place == 0:
                self._sender.send(events.words_delta(sent, sent.words))
            gevent.sleep(pause_s)
        if not sent.is_active:
            return
        if breaks and script.fault_deltas >= len(chunks):
            self._sender.play_fault(sent)
        self._finish(sent, "completed", "")

    def cancel(self, sent: SentResponse, reason: str) -> None:
        """Cancel a response; deltas still arrive for the script's `trailing_s`."""
        if self._script.trailing_s:
            self._sender.send_later(self._script.trailing_s, self._finish_cancelled, sent, reason)
        else:
            self._finish_cancelled(sent, reason)

    def _finish_cancelled(self, sent: SentResponse, reason: str) -> None:
        if sent.is_active:
            self._finish(sent, "cancelled", reason)

    def _finish(self, sent: SentResponse, status: str, reason: str) -> None:
        """Send the events that end a response."""
        if self._sender.silent:
            return
        sent.status, sent.reason, sent.done_s = status, reason, time.monotonic()
        self.active = None
        for event in events.ending(sent):
            self._sender.send(event)
        if status == "completed" and sent.number == self._script.hang_up_after:
            arguments = json.dumps({"reason": "the conversation is over"})
            item_id, call_id = self._sender.ids.new("item"), self._sender.ids.new("call")
            for event in events.function_call(sent, self._script.hang_up_tool, arguments, item_id, call_id):
                self._sender.send(event)
        item = events.message_item(sent.item_id, "completed" if status == "completed" else "incomplete", words=sent.words)
        self._sender.send({"type": "response.done", "response": events.response(sent, [item])})
