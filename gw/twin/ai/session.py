"""One session of the AI twin: hears the caller, answers in turn, can be interrupted, plays its script's faults.

Each client event is answered as OpenAI Realtime answers it. One greenlet reads; those of voice and sender end with it.
Everything sent and received is recorded in the ledger. Careless acts of the client that are allowed are recorded, not refused.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import gevent
import msgspec

from gw.twin.ai import events
from gw.twin.ai.events import Event, SessionSettings
from gw.twin.ai.faults import TURNS, FaultyTurn
from gw.twin.ai.ledger import (
    KEPT_UPLINK_BYTES,
    AiLedger,
    Cancel,
    Create,
    Deletion,
    Item,
    McpTool,
    Received,
    SentResponse,
    Truncate,
)
from gw.twin.ai.script import AiScript
from gw.twin.ai.sender import EventSender
from gw.twin.ai.vad import EnergyVad
from gw.twin.ai.voice import AiVoice
from gw.twin.websocket import ClosedError, TimedOutError, TwinSocket

_DEAF_S: Final = 60.0
_TRANSCRIPT_DELAY_S: Final = 0.05  # as the API, whose transcripts come after the answer has begun


class AiSession:
    """Serves one websocket until it ends."""

    def __init__(self, websocket: TwinSocket, ledger: AiLedger, script: AiScript) -> None:
        self._websocket = websocket
        self._ledger = ledger
        self._script = script
        self._sender = EventSender(websocket, ledger, script)
        self._voice = AiVoice(self._sender, ledger, script)
        self._settings = SessionSettings()
        self._vad = EnergyVad()
        self._turn = ("", 0)  # item id and start of the caller's current turn

    def run(self) -> None:
        """Greet, then answer events until either side closes."""
        self._ledger.closed_by = "us"
        try:
            self._greet()
            while not self._sender.frozen and (self._script.fault != "deaf" or not self._ledger.responses):
                message = self._websocket.receive()
                if not message.text:
                    self._ledger.violations.append("binary message")
                self._on_message(message.data)
            gevent.sleep(_DEAF_S)
        except ClosedError as end:
            self._ledger.closed_by, self._ledger.close_code = end.by, end.code
        except TimedOutError:
            self._ledger.closed_by = "silence"
        finally:
            self._sender.stop()
            self._websocket.release()
            self._ledger.closed_s = time.monotonic()
            if self._websocket.violation:
                self._ledger.violations.append(f"RFC 6455: {self._websocket.violation}")

    def _greet(self) -> None:
        if self._script.fault == "close_first":
            self._websocket.close(1011, "no capacity")
        if self._script.fault == "silent":
            self._sender.silent = True
        expires_at = int(time.time() + self._script.lifetime_s)
        session = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._sender.ids.new("sess"),
            "model": self._ledger.model,
        }
        self._sender.send({"type": "session.created", "session": {**session, "expires_at": expires_at}})
        ends_after_s = self._script.ends_after_s
        if ends_after_s is None and self._script.expires:
            ends_after_s = self._script.lifetime_s
        if ends_after_s is not None:
            self._sender.send_later(ends_after_s, self._expire)

    def _expire(self) -> None:
        self._sender.fail("invalid_request_error", "session_expired", "Your session hit the maximum duration of 60 minutes.")
        self._websocket.start_close(1001, "session expired")

    # -- client events ----------------------------------------------------------------------------------------------

    def _on_message(self, data: bytes) -> None:
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._sender.fail("invalid_request_error", None, "The message is not valid JSON.")
            return
        kind = event.get("type") if isinstance(event, dict) else None
        act = _CLIENT_EVENTS.get(kind) if isinstance(kind, str) else None
        if act is None:
            self._refuse(event, "invalid_value", f"Invalid value: '{kind}'.", "type")
            return
        if kind != "input_audio_buffer.append":
            self._ledger.events.append(Received(time.monotonic(), str(kind), event))
        act(self, event)

    def _refuse(self, event: object, code: str | None, message: str, param: str | None = None) -> None:
        self._sender.fail("invalid_request_error", code, message, param, _id_of(event))

    def _on_update(self, event: Event) -> None:
        asked = event.get("session")
        try:
            settings = events.settings_of(asked)
        except events.SettingsError as error:
            self._refuse(event, error.code, str(error), error.param)
            return
        self._ledger.updates.append(asked if isinstance(asked, dict) else {})
        if self._script.fault == "update_refused":
            self._refuse(event, "invalid_value", "This session is refused.", "session")
        elif self._script.fault != "never_ready":
            self._sender.send_later(self._script.ready_delay_s, self._confirm, settings, asked)

    def _confirm(self, settings: SessionSettings, asked: dict[str, Any]) -> None:
        self._settings = settings
        self._vad = EnergyVad(settings.silence_ms, settings.padding_ms)
        session = {"id": "sess", "object": "realtime.session", "model": self._ledger.model, **asked}
        if self._script.fault == "wrong_format":
            pcm = {"format": {"type": "audio/pcm", "rate": 24000}}
            session = {**session, "audio": {"input": pcm, "output": pcm}}
        self._ledger.ready_s = time.monotonic()
        self._sender.send({"type": "session.updated", "session": session})
        self._list_mcp(asked.get("tools", []))
        if self._script.hears_after_s is not None and len(self._ledger.updates) == 1:
            self._sender.send_later(self._script.hears_after_s, self._hear)

    def _hear(self) -> None:
        """Detect speech in any audio; it ends as speech does."""
        if not self._vad.speaking:
            self._vad.speaking = True
            self._on_speech(int((self._script.hears_after_s or 0.0) * 1000))

    def _on_append(self, event: Event) -> None:
        text = event.get("audio")
        try:
            audio = binascii.a2b_base64(text, strict_mode=True) if isinstance(text, str) else b""
        except (binascii.Error, ValueError):
            audio = b""
        if not audio:
            self._refuse(event, "invalid_value", "Invalid 'audio'. Expected base64.", "audio")
            return
        ledger, now_s = self._ledger, time.monotonic()
        if ledger.ready_s is None:
            ledger.violations.append("audio before session.updated")
        ledger.first_append_s = now_s if ledger.first_append_s is None else ledger.first_append_s
        ledger.last_append_s = now_s
        ledger.appends += 1
        if len(ledger.uplink) + len(audio) > KEPT_UPLINK_BYTES:
            self._websocket.close(1009, "more audio than a session takes")
            return
        ledger.uplink += audio
        if self._settings.vad and self._settings.is_pcmu:
            for edge in self._vad.feed(audio):
                (self._on_speech if edge.started else self._on_pause)(edge.at_ms)

    def _on_speech(self, at_ms: int) -> None:
        """Start the caller's turn; it interrupts a response where the client allowed that."""
        self._turn = (self._sender.ids.new("item"), at_ms)
        self._ledger.withdraw(time.monotonic())
        faults = self._turn_faults(len(self._ledger.turns_ms) + 1)
        event = {"type": "input_audio_buffer.speech_started", "audio_start_ms": at_ms, "item_id": self._turn[0]}
        for fault in faults:
            event |= fault.started or {}
        self._sender.send(event)
        if self._settings.interrupt_response and self._voice.active is not None:
            self._voice.cancel(self._voice.active, "turn_detected")
        if any(fault.talks_over for fault in faults):
            self._voice.respond(asked=False)

    def _turn_faults(self, number: int) -> list[FaultyTurn]:
        return [TURNS[strike.name] for strike in self._script.strikes if strike.name in TURNS and strike.hits(number)]

    def _on_pause(self, at_ms: int) -> None:
        """End the caller's turn."""
        item_id, start_ms = self._turn
        self._ledger.turns_ms.append((start_ms, at_ms))
        self._ledger.owe("speech", time.monotonic())
        self._sender.send({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": at_ms, "item_id": item_id})
        self._commit(item_id)
        if self._settings.create_response and self._voice.active is None:
            self._voice.respond(asked=False)

    def _commit(self, item_id: str) -> None:
        item = events.message_item(item_id, "completed", "user")
        self._sender.send({"type": "input_audio_buffer.committed", "previous_item_id": None, "item_id": item_id})
        self._sender.send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
        self._sender.send({"type": "conversation.item.done", "previous_item_id": None, "item": item})
        faults = self._turn_faults(len(self._ledger.turns_ms))
        if not self._settings.transcribe or not self._script.caller_words or any(one.transcript == "never" for one in faults):
            return
        event: Event = {"item_id": item_id, "content_index": 0}
        if any(one.transcript == "failed" for one in faults):
            event["type"] = "conversation.item.input_audio_transcription.failed"
            event["error"] = {"type": "server_error", "code": None, "message": "Input transcription failed.", "param": None}
        else:
            words = self._script.caller_words
            event["type"] = "conversation.item.input_audio_transcription.completed"
            event["transcript"] = words[max(0, len(self._ledger.turns_ms) - 1) % len(words)]
            start_ms, end_ms = self._ledger.turns_ms[-1] if self._ledger.turns_ms else (0, 1000)
            event["usage"] = events.transcription_usage(end_ms - start_ms, str(event["transcript"]))
            self._ledger.transcriptions.append(event["usage"])
        self._sender.send_later(_TRANSCRIPT_DELAY_S, self._sender.send, event)

    def _on_commit(self, event: Event) -> None:
        if not self._vad.speaking and not self._ledger.uplink:
            self._refuse(event, "input_audio_buffer_commit_empty", "The buffer is empty.")
        else:
            self._commit(self._sender.ids.new("item"))

    def _on_clear(self, event: Event) -> None:
        self._vad = EnergyVad(self._settings.silence_ms, self._settings.padding_ms)
        self._sender.send({"type": "input_audio_buffer.cleared"})

    def _on_create(self, event: Event) -> None:
        now_s, errors = time.monotonic(), len(self._ledger.errors)
        asked = event.get("response")
        options = asked if isinstance(asked, dict) else {}
        instructions, with_tools = options.get("instructions"), options.get("tool_choice") != "none"
        if instructions:
            self._ledger.violations.append("instructions of a response, which replace the persona")
        self._ledger.owe("create", now_s)
        sent = None
        try:
            sent = self._create(event, with_tools=with_tools)
        finally:  # also if a fault closes the connection
            refused = self._ledger.errors[errors:]
            response_id = None if sent is None else sent.response_id
            refusal = refused[0].code if refused else ""
            self._ledger.creates.append(Create(now_s, str(instructions or ""), response_id, refusal, with_tools))

    def _create(self, event: Event, *, with_tools: bool) -> SentResponse | None:
        if self._voice.active is not None:
            code = "conversation_already_has_active_response"
            message = f"Conversation already has an active response in progress: {self._voice.active.response_id}."
            self._refuse(event, code, message)
        elif self._script.fault == "rate_limited":
            self._sender.fail(
                "requests", "rate_limit_exceeded", "Rate limit reached. Please try again later.", None, _id_of(event)
            )
        elif self._script.fault == "response_refused" and not self._ledger.errors:
            self._sender.fail("server_error", None, "The server had an error while processing your request.", None, _id_of(event))
        else:
            return self._voice.respond(asked=True, event_id=_id_of(event), with_tools=with_tools)
        return None

    def _on_cancel(self, event: Event) -> None:
        active = self._voice.active
        self._ledger.cancels.append(Cancel(time.monotonic(), None if active is None else active.response_id))
        if active is None:
            message = "Cancellation failed: no active response found."
            self._refuse(event, "response_cancel_not_active", message)
        else:
            self._voice.cancel(active, "client_cancelled")

    def _on_truncate(self, event: Event) -> None:
        item_id, end_ms = event.get("item_id"), event.get("audio_end_ms")
        sent = next((one for one in self._ledger.responses if one.item_id == item_id), None)
        problem = ""
        if sent is None or item_id not in self._ledger.item_ids:
            problem = f"Item with item_id '{item_id}' not found."
        elif not isinstance(end_ms, int) or end_ms < 0 or event.get("content_index") != 0:
            problem = "Invalid 'audio_end_ms' or 'content_index'."
        elif end_ms > sent.sent_ms:
            problem = f"Audio content of {sent.sent_ms}ms is already shorter than {end_ms}ms."
        accepted = not problem
        end = end_ms if isinstance(end_ms, int) else -1
        self._ledger.truncates.append(Truncate(time.monotonic(), str(item_id), end, accepted))
        if sent is None or not accepted:
            self._refuse(event, "invalid_value", problem, "audio_end_ms")
            return
        sent.truncated_ms = end
        place = {"item_id": item_id, "content_index": 0, "audio_end_ms": end}
        self._sender.send({"type": "conversation.item.truncated", **place})
        self._voice.on_truncated(sent)

    def _on_item(self, event: Event) -> None:
        item = event.get("item")
        problem = events.item_problem(item, self._ledger.item_ids, {*self._calls()})
        if problem is not None or not isinstance(item, dict):
            self._refuse(event, "invalid_value", problem or "", "item")
            return
        if item["type"] == "function_call_output":
            self._ledger.tool_outputs.append(item)
        if item["type"] == "mcp_approval_response":
            self._on_approval(item)
        item = {"id": self._sender.ids.new("item"), "status": "completed", **item}
        parts = [part.get("text") for part in item["content"]] if item["type"] == "message" else [item.get("output")]
        text = "".join(part for part in parts if isinstance(part, str))
        told = Item(time.monotonic(), item["id"], item["type"], item.get("role", ""), text, item.get("call_id", ""))
        self._ledger.items.append(told)
        self._sender.send({"type": "conversation.item.added", "previous_item_id": None, "item": item})
        self._sender.send({"type": "conversation.item.done", "previous_item_id": None, "item": item})

    def _on_approval(self, item: Event) -> None:
        """Have the server called, if the client approves."""
        asked = self._ledger.mcp_questions.get(item["approval_request_id"])
        if asked is None:
            self._ledger.violations.append("an approval of nothing")
            return
        self._ledger.mcp_answers.append(item)
        response_id, tool = asked
        if item.get("approve") is not True:
            return
        call = events.mcp_item(self._sender.ids.new("mcp"), "mcp_call", tool, output=None, error=None)
        for event in events.mcp_begins(response_id, call):
            self._sender.send(event)
        if tool.ends:
            self._sender.send_later(tool.takes_s, self._end_mcp, response_id, call, tool)

    def _end_mcp(self, response_id: str, call: Event, tool: McpTool) -> None:
        ended = {"error": {"type": "http_error", "message": "503"}} if tool.fails else {"output": '{"name":"Ada"}'}
        for event in events.mcp_ends(response_id, {**call, **ended}):
            self._sender.send(event)

    def _list_mcp(self, tools: list[Event]) -> None:
        """List the tools of the session's remote MCP servers."""
        for tool in tools:
            if tool.get("type") == "mcp":
                item_id = self._sender.ids.new("mcpl")
                for state in ("in_progress", "completed" if self._script.mcp_lists else "failed"):
                    self._sender.send({"type": f"mcp_list_tools.{state}", "item_id": item_id})

    def _calls(self) -> Iterator[str]:
        """Yield the call_ids of the conversation."""
        yield from (call.call_id for call in self._ledger.calls)
        yield from (item.call_id for item in self._ledger.items if item.kind == "function_call")

    def _on_delete(self, event: Event) -> None:
        item_id = str(event.get("item_id"))
        accepted = item_id in self._ledger.item_ids
        self._ledger.deletions.append(Deletion(time.monotonic(), item_id, accepted))
        if not accepted:
            message = f"Error deleting item: the item with id '{item_id}' does not exist."
            self._refuse(event, "item_delete_invalid_item_id", message, "item_id")
            return
        self._ledger.item_ids.discard(item_id)
        self._sender.send({"type": "conversation.item.deleted", "item_id": item_id})


def _id_of(event: object) -> str | None:
    named = event.get("event_id") if isinstance(event, dict) else None
    return named if isinstance(named, str) else None


_CLIENT_EVENTS: Final[dict[str, Callable[[AiSession, Event], None]]] = {
    "session.update": AiSession._on_update,
    "input_audio_buffer.append": AiSession._on_append,
    "input_audio_buffer.commit": AiSession._on_commit,
    "input_audio_buffer.clear": AiSession._on_clear,
    "response.create": AiSession._on_create,
    "response.cancel": AiSession._on_cancel,
    "conversation.item.create": AiSession._on_item,
    "conversation.item.delete": AiSession._on_delete,
    "conversation.item.truncate": AiSession._on_truncate,
}
