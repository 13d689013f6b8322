"""Responses of an AI session: one at a time, audio in deltas, until completed or cancelled.

A response carries the events of OpenAI Realtime and ends as there; faults strike at the places that the script names. One
greenlet sends a response's audio.
"""

from __future__ import annotations

import base64
import time
from typing import Final

import gevent

from gw.twin.ai import events
from gw.twin.ai.events import Event
from gw.twin.ai.faults import AT_END, BEFORE, CREATED, LIMITED, RESPONSES, Call, Ending, FaultyResponse, Refusal, Strike
from gw.twin.ai.ledger import AiLedger, Delta, SentCall, SentResponse
from gw.twin.ai.script import AiScript
from gw.twin.ai.sender import EventSender

_LATE_DELTAS: Final = 5
_LATE_BYTES: Final = 800  # 100 ms each
#: Deltas without a pause that are sent in one turn of the hub: a turn each would make a byte of audio cost milliseconds.
_UNBROKEN_DELTAS: Final = 20
_THOUGHT_S: Final = 0.1  # between two pieces of a tool call's arguments


class AiVoice:
    """One session's responses."""

    def __init__(self, sender: EventSender, ledger: AiLedger, script: AiScript) -> None:
        self._sender = sender
        self._ledger = ledger
        self._script = script
        self._attempts = 0  # responses, with those that were refused or ignored
        self._limited_until_s = 0.0
        self.active: SentResponse | None = None

    def respond(self, asked: bool, event_id: str | None = None, *, with_tools: bool = True) -> SentResponse | None:
        """Begin a response; a greenlet sends its audio.

        `event_id`: of the request for it, if that has one. `with_tools` False: the script's tools are not called.
        Returns None if the request is refused or ignored.
        """
        if self._ledger.ready_s is None:
            self._ledger.violations.append("a response asked for before session.updated")
        now_s = time.monotonic()
        if asked and now_s < self._limited_until_s:
            self._ledger.early_creates += 1
            self._refuse(LIMITED, event_id)
            return None
        self._attempts += 1
        strikes = [one for one in self._script.strikes if one.name in RESPONSES and one.hits(self._attempts)]
        sent = self._new(asked, now_s, strikes)
        sent.hangs_up, sent.may_call = sent.hangs_up and with_tools, with_tools
        for fault in _at(strikes, BEFORE):
            if fault.refuses is not None:
                self._refuse(fault.refuses, event_id)
            if fault.limits:
                self._limited_until_s = now_s + self._script.limit_s
            self._sender.play(fault, sent)
            if fault.is_last:
                return None
        self._ledger.responses.append(sent)
        self.active = sent
        for event in events.created(sent):
            self._send(sent, event)
        used = sum(one.usage["total_tokens"] for one in self._ledger.responses if one.usage)
        self._sender.send(events.token_limit(self._script.token_limit, used))
        if not _at(strikes, CREATED) and not self._is_wordless(sent):
            self._open(sent)
        self._sender.send_later(self._script.thinking_s, self._speak, sent, strikes)
        return sent

    def _new(self, asked: bool, now_s: float, strikes: list[Strike]) -> SentResponse:
        """Describe the next response. One that failed without audio is followed by the same words."""
        script, earlier = self._script, self._ledger.responses
        number = 1 + sum(bool(one.audio or not one.faults) for one in earlier)
        return SentResponse(
            number=len(earlier) + 1,
            response_id=self._sender.ids.new("resp"),
            item_id=self._sender.ids.new("item"),
            asked=asked,
            intended=script.audio_of(number, asked),
            words=script.agent_words[(number - 1) % len(script.agent_words)] if script.agent_words else "",
            created_s=now_s,
            hangs_up=number == script.hang_up_after,
            faults=tuple(strike.name for strike in strikes),
        )

    def _refuse(self, refusal: Refusal, event_id: str | None) -> None:
        self._sender.fail(refusal.kind, refusal.code, self._text(refusal), None, event_id)

    def _text(self, refusal: Refusal) -> str:
        return refusal.message.format(wait=f"{self._script.limit_s:g}")

    def _send(self, sent: SentResponse, event: Event) -> None:
        """Send an event of a response, without the fields that its faults take away."""
        for name in (field for fault in sent.faults for field in RESPONSES[fault].strips):
            event.pop(name, None)
            if name == "response_id" and "response" in event:
                event["response"].pop("id", None)
        self._sender.send(event)

    # -- audio ------------------------------------------------------------------------------------------------------

    def _speak(self, sent: SentResponse, strikes: list[Strike]) -> None:
        script, index = self._script, self._ledger.index
        if self._strike(sent, _at(strikes, CREATED)):
            return
        if not sent.has_item and not self._is_wordless(sent):
            self._open(sent)
        chunks = script.chunks(sent.intended[: len(sent.intended) - _withheld_bytes(sent)], index, sent.number)
        for place, (chunk, pause_s) in enumerate(zip(chunks, script.pauses_s(chunks, index, sent.number), strict=True)):
            if self._strike(sent, _at(strikes, place)):
                return
            self._send_audio(sent, chunk)
            if place == 0:
                self._send(sent, events.words_delta(sent, sent.words))
            if pause_s or place % _UNBROKEN_DELTAS == 0:
                gevent.sleep(pause_s)
        if not self._strike(sent, _at(strikes, len(chunks), AT_END)):
            self._finish(sent, Ending("completed"))

    def _is_wordless(self, sent: SentResponse) -> bool:
        """Return whether a response calls tools without a word."""
        return not sent.intended and sent.may_call and (sent.number in self._script.calls or sent.number in self._script.mcp)

    def _open(self, sent: SentResponse) -> None:
        """Send the beginning of the response's item."""
        sent.has_item = True
        for event in events.opening(sent):
            self._send(sent, event)

    def _send_audio(self, sent: SentResponse, chunk: bytes) -> None:
        now_s = time.monotonic()
        if not sent.deltas:
            self._ledger.answer(sent, now_s)
        sent.audio += chunk
        sent.deltas.append(Delta(now_s, len(chunk)))
        self._send(sent, events.audio_delta(sent, base64.b64encode(chunk).decode()))

    def _send_late(self, sent: SentResponse, after: str) -> None:
        """Send the rest of an item's audio, if a fault of the response demands it."""
        if not any(RESPONSES[name].late == after for name in sent.faults):
            return
        for _ in range(_LATE_DELTAS):
            place = len(sent.audio) + len(sent.late)
            chunk = sent.intended[place : place + _LATE_BYTES]
            if not chunk:
                return
            sent.late += chunk
            self._send(sent, events.audio_delta(sent, base64.b64encode(chunk).decode()))

    # -- faults -----------------------------------------------------------------------------------------------------

    def _strike(self, sent: SentResponse, faults: list[FaultyResponse]) -> bool:
        """Play the faults of one place. Returns True if the response sends nothing more."""
        for fault in faults if sent.is_active else ():
            self._sender.play(fault, sent)
            if fault.is_last:
                return True
            if fault.limits:
                self._limited_until_s = time.monotonic() + self._script.limit_s
            if fault.thinks:
                self._think_aloud(sent)
            if fault.ends is not None and sent.is_active:
                self._finish(sent, fault.ends, fault.calls)
        return not sent.is_active

    def _think_aloud(self, sent: SentResponse) -> None:
        """Send the arguments of a tool call in small pieces; the call itself is cut short."""
        item = self._call_item(sent, Call(status="incomplete"))
        *begun, _, _, done, stored = events.function_call(sent, item, 1)
        place = {"response_id": sent.response_id, "item_id": item["id"], "output_index": 1, "call_id": item["call_id"]}
        for event in begun:
            self._send(sent, event)
        for _ in range(round(self._script.thinks_s / _THOUGHT_S)):
            if not sent.is_active:
                break
            self._send(sent, {"type": "response.function_call_arguments.delta", **place, "delta": " "})
            gevent.sleep(_THOUGHT_S)
        for event in (done, stored):
            self._send(sent, event)

    def _call_item(self, sent: SentResponse, call: Call) -> Event:
        """Build the item of a tool call, and record it."""
        new_id = self._sender.ids.new("call").ljust(call.id_chars, "x")
        call_id = self._ledger.calls[-1].call_id if call.again and self._ledger.calls else new_id
        name = call.name or self._script.tool
        self._ledger.calls.append(SentCall(time.monotonic(), sent.response_id, call_id, name, call.status))
        item = {"id": self._sender.ids.new("item"), "object": "realtime.item", "type": "function_call", "name": name}
        status = {} if call.status == "" else {"status": call.status}
        return {**item, **status, "call_id": call_id, "arguments": call.arguments}

    # -- the end ----------------------------------------------------------------------------------------------------

    def cancel(self, sent: SentResponse, reason: str) -> None:
        """Cancel a response; deltas still arrive for the script's `trailing_s`."""
        if self._script.trailing_s:
            self._sender.send_later(self._script.trailing_s, self._finish_cancelled, sent, reason)
        else:
            self._finish_cancelled(sent, reason)

    def _finish_cancelled(self, sent: SentResponse, reason: str) -> None:
        if sent.is_active:
            self._finish(sent, Ending("cancelled", reason))

    def on_truncated(self, sent: SentResponse) -> None:
        """Send audio of a truncated item, if the script has that fault."""
        self._send_late(sent, "truncated")

    def _finish(self, sent: SentResponse, ending: Ending, calls: tuple[Call, ...] = ()) -> None:
        """Send the events that end a response."""
        if self._sender.silent:
            return
        sent.status, sent.reason, sent.done_s = ending.status, ending.reason, time.monotonic()
        before = next((one for one in reversed(self._ledger.responses) if one.usage), None)
        sent.usage = events.usage_of(sent, len(self._ledger.uplink), len(self._ledger.items), before)
        if self.active is sent:
            self.active = None
        output = []
        if sent.has_item:
            for event in events.ending(sent):
                self._send(sent, event)
            status = "completed" if ending.status == "completed" else "incomplete"
            output.append(events.message_item(sent.item_id, status, words=sent.words))
        if ending.status == "completed" and sent.may_call and not calls:
            calls = self._script.calls.get(sent.number, ())
        if ending.status == "completed" and sent.hangs_up and not calls and sent.has_item:
            calls += (Call(self._script.hang_up_tool, '{"reason":"the conversation is over"}'),)
        for call in calls:
            item = self._call_item(sent, call)
            for event in events.function_call(sent, item, len(output), call.pieces):
                self._send(sent, event)
            output.append(item)
        tool = self._script.mcp.get(sent.number) if ending.status == "completed" and sent.may_call else None
        if tool is not None:
            item = events.mcp_item(self._sender.ids.new("mcpr"), "mcp_approval_request", tool)
            self._ledger.mcp_questions[item["id"]] = (sent.response_id, tool)
            for event in events.mcp_approval(sent, item, len(output)):
                self._send(sent, event)
            output.append(item)
        error, failure = ending.error, None
        if error is not None:
            failure = {"type": error.kind, "code": error.code, "message": self._text(error)}
        self._send(sent, {"type": "response.done", "response": events.response(sent, output, failure)})
        self._send_late(sent, "done")


def _withheld_bytes(sent: SentResponse) -> int:
    """Return how much of a response's audio is left for after its end, or for after its truncation."""
    is_late = any(RESPONSES[name].late for name in sent.faults)
    return min(_LATE_DELTAS * _LATE_BYTES, len(sent.intended) // 2) if is_late else 0


def _at(strikes: list[Strike], place: int, last: int | None = None) -> list[FaultyResponse]:
    """Return the faults of a place, or of the places from there to `last`. A refused request has only the place BEFORE."""
    found = []
    for strike in strikes:
        fault = RESPONSES[strike.name]
        if place <= (BEFORE if fault.is_before else strike.place) <= (place if last is None else last):
            found.append(fault)
    return found
