"""Telephones of the bench: one process with hundreds of callers, each sending 50 frames a second and listening.

Run as `python -m gw.bench.load.callers`; orders come on stdin: dial, begin, end, report, stop. Each caller sends at its own
phase of the 20 ms, so that the load is even. Every frame carries its number and its send time, from which the AI computes the
latency; a 60 ms jitter buffer separates lateness from underrun. A subject that resamples destroys both: with `--unmarked`,
audio is measured by its length. Nothing is played, kept or compared: the Twilio twin does that in the tests.
"""

from __future__ import annotations

import argparse
import binascii
import json
import secrets
import socket
import sys
from time import monotonic
from typing import Any, Final

from gw.bench.load.jitter_buffer import JitterBuffer
from gw.bench.load.loop import TICKS_PER_S, Loop, OrderChannel, Samples
from gw.bench.load.wire import (
    CLOSE,
    FRAME_BYTES,
    MAGIC,
    MARK,
    MARK_CHARS,
    NOISE,
    PING,
    PTIME_S,
    TEXT,
    Connection,
    WireError,
    audio_bytes,
    masked_text,
    open_websocket,
)
from gw.twin.twilio import twiml
from gw.twin.twilio.messages import CONNECTED, MessageWriter
from gw.twin.twilio.webhooks import WebhookSender

#: Twilio echoes a mark once played: a lead and a frame after it arrived.
_ECHO_S: Final = 0.12
_FRAME_TICKS: Final = round(PTIME_S * TICKS_PER_S)
_TIMEOUT_S: Final = 15.0
_HEAD: Final = b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"'
_NOISE_TEXT: Final = binascii.b2a_base64(NOISE, newline=False)
_PAYLOADS: Final = (b'"payload":"', b'"payload": "')
assert MARK.size % 3 == 0 and len(NOISE) + MARK.size == FRAME_BYTES


class LoadCaller(Connection):
    """One established call."""

    def __init__(
        self, number: int, telephones: Telephones, sock: socket.socket, writer: MessageWriter, call_sid: str, stream_sid: str
    ) -> None:
        super().__init__(telephones.loop, sock)
        self.number = number
        self.call_sid = call_sid
        self.jitter_buffer = JitterBuffer()
        self._telephones = telephones
        self._writer = writer
        self._tail = b'"},"streamSid":"' + stream_sid.encode() + b'"}'
        self._sent = 0
        self._tick = 0
        self.clears: list[float] = []

    # -- sending --------------------------------------------------------------------------------------------------------

    def start(self, tick: int) -> None:
        """Send frames from that tick on."""
        self._tick = tick
        self._loop.at(tick, self._send_frame)

    def _send_frame(self, _: float) -> None:
        if self.end_reason:
            return
        n = self._sent
        self._sent = n + 1
        stamp = int(monotonic() * 1e6) & 0xFFFFFFFF
        payload = binascii.b2a_base64(MARK.pack(MAGIC, self.number, n, stamp), newline=False) + _NOISE_TEXT
        self.write(_HEAD % (n + 2, n + 1, n * 20) + payload + self._tail)
        self._tick += _FRAME_TICKS
        self._loop.at(self._tick, self._send_frame)

    def write(self, body: bytes, opcode: int = TEXT) -> None:
        """Send one message. A call that cannot be written to has ended."""
        if self.send(masked_text(body, opcode)):
            self._telephones.frames_sent += 1

    # -- listening ------------------------------------------------------------------------------------------------------

    def on_message(self, data: bytes, opcode: int, mask_at: int, start: int, end: int, now_s: float) -> None:
        if opcode == 0x80 | TEXT:
            self._on_text(data, start, end, now_s)
        elif opcode == 0x80 | PING:
            self.write(data[start:end], 10)
        elif opcode == 0x80 | CLOSE:
            code = int.from_bytes(data[start : start + 2])
            self.end(f"closed with {code} {data[start + 2 : end].decode(errors='replace')}")
        else:
            self._telephones.unexpected += 1

    def _on_text(self, data: bytes, start: int, end: int, now_s: float) -> None:
        for before in _PAYLOADS:
            at = data.find(before, start, end)
            if at >= 0:
                at += len(before)
                if self._telephones.unmarked:
                    self._on_unmarked_audio(data, at, now_s)
                    return
                magic, _, number, _ = MARK.unpack(binascii.a2b_base64(data[at : at + MARK_CHARS]))
                if magic != MAGIC:
                    self._telephones.unexpected += 1
                    return
                self._telephones.record_lateness(self.jitter_buffer.push(number, now_s), now_s)
                return
        message = json.loads(data[start:end])
        if message.get("event") == "clear":
            self.jitter_buffer.on_clear()
            self.clears.append(now_s)  # after the window too: it may answer an interruption in the window
        elif message.get("event") == "mark":
            name = message["mark"]["name"]
            self._loop.after(_ECHO_S, lambda _: None if self.end_reason else self.write(self._writer.mark(name)))

    def _on_unmarked_audio(self, data: bytes, at: int, now_s: float) -> None:
        """Take audio of any length; constant bytes are silence, which the AI never sent."""
        end = data.index(b'"', at)
        if data.count(data[at : at + 4], at, end) * 4 == (end - at) // 4 * 4:
            self._telephones.unexpected += 1
            return
        self._telephones.record_lateness(self.jitter_buffer.push_next(audio_bytes(data, at, end) / FRAME_BYTES, now_s), now_s)

    def hang_up(self) -> None:
        if not self.end_reason:
            self.write(self._writer.stop())
            self.end("caller")


class Telephones:
    """All callers, and the orders about them."""

    def __init__(self, loop: Loop, webhooks: WebhookSender, account_sid: str, *, unmarked: bool = False) -> None:
        """`unmarked`: received audio carries no frame numbers."""
        self.loop = loop
        self.unmarked = unmarked
        self._webhooks = webhooks
        self._account_sid = account_sid
        self.callers: list[LoadCaller] = []
        self.late = Samples()
        self.heard = 0
        self.unexpected = 0  # unknown messages, and audio without the bench's mark
        self.frames_sent = 0
        self._before: list[tuple[int, float, int, int]] = []
        self._after: list[tuple[int, float, int, int]] = []
        self._ended: dict[str, Any] = {}
        self._sent_before = 0
        self._stalls_before = 0

    def record_lateness(self, late_s: float | None, now_s: float) -> None:
        """Record received audio; without `late_s` while its talkspurt has no clock."""
        if self.loop.measuring:
            self.heard += 1
            if late_s is not None:
                self.loop.record(self.late, late_s, now_s)

    def dial(self, order: dict[str, Any]) -> dict[str, Any]:
        """Place `calls` calls one by one through the voice webhook `path`. Established calls talk meanwhile."""
        calls = int(order["calls"])
        for n in range(calls):
            try:
                caller = self.place(len(self.callers), str(order["path"]))
            except (OSError, WireError, KeyError) as error:
                return {"dialed": n, "error": f"call {n + 1}: {error}"}
            self.callers.append(caller)
            # phases by the golden ratio: even for any number of calls
            phase = int(caller.number * 0.618034 % 1 * _FRAME_TICKS)
            caller.start((self.loop.tick // _FRAME_TICKS + 2) * _FRAME_TICKS + phase)
            for _ in range(4 + n // 4):
                self.loop.turn(0)
        return {"dialed": calls, "sids": [caller.call_sid for caller in self.callers]}

    def place(self, number: int, path: str) -> LoadCaller:
        """Place one call, up to its stream's start. Raises OSError, WireError, KeyError."""
        call_sid, stream_sid = "CA" + secrets.token_hex(16), "MZ" + secrets.token_hex(16)
        fields = {
            "AccountSid": self._account_sid,
            "CallSid": call_sid,
            "From": f"+1500555{number:04}",
            "To": "+15005550001",
            "Direction": "inbound",
            "CallStatus": "ringing",
        }
        answer = self._webhooks.post(self._webhooks.absolute(path), fields)
        streams = [verb for verb in twiml.parse(answer.body, answer.content_type).verbs if isinstance(verb, twiml.Stream)]
        if not answer.is_good or not streams:
            raise WireError(f"{path} was answered {answer.status}: {answer.body[:200]}")
        url = streams[0].url
        host, port, _ = self._webhooks.locate(url)
        rest_of_url = url.split("://", 1)[1]
        authority, _, target = rest_of_url.partition("/")
        sock, rest = open_websocket((host, port), authority, "/" + target, self._webhooks.headers(url), _TIMEOUT_S)
        writer = MessageWriter(self._account_sid, call_sid, stream_sid)
        caller = LoadCaller(number, self, sock, writer, call_sid, stream_sid)
        caller.write(CONNECTED)
        caller.write(writer.start(streams[0].parameters))
        if rest:
            caller.on_data(rest)
        return caller

    def begin(self, _: dict[str, Any]) -> dict[str, Any]:
        """Start the measured window."""
        self.late.clear()
        self.heard = self.unexpected = 0
        for caller in self.callers:
            caller.clears.clear()
            if self.unmarked:  # lateness from placing the calls is forgiven: such a subject never catches up
                caller.jitter_buffer.on_clear()
        self._before = [caller.jitter_buffer.counts() for caller in self.callers]
        self._sent_before, self._stalls_before = self.frames_sent, self._stalls()
        self.loop.begin()
        return {"at_s": self.loop.since_s, "alive": self._alive()}

    def end(self, _: dict[str, Any]) -> dict[str, Any]:
        """End the measured window; the calls continue."""
        self.loop.measuring = False
        self._after = [caller.jitter_buffer.counts() for caller in self.callers]
        self._ended = {
            "window_s": monotonic() - self.loop.since_s,
            "alive": self._alive(),
            "ended": sorted({caller.end_reason for caller in self.callers if caller.end_reason}),
            "sent": self.frames_sent - self._sent_before,
            "heard": self.heard,
            "unexpected": self.unexpected,
            "stalls": self._stalls() - self._stalls_before,
        }
        return {}

    def report(self, _: dict[str, Any]) -> dict[str, Any]:
        """Return the window's figures. Counting takes a second, in which nothing is sent or read."""
        until_s = monotonic()
        underruns, gap_s, lost, disorder = (
            sum(after[i] - before[i] for after, before in zip(self._after, self._before, strict=True)) for i in range(4)
        )
        return {
            **self._ended,
            "underruns": underruns,
            "gap_ms": round(gap_s * 1000, 1),
            "lost": lost,
            "disorder": disorder,
            "lateness": self.late.summary(),
            "own": self.loop.late.summary(),
            "steps": self.loop.steps.summary(),
            "until_s": until_s,
            "clears": {str(caller.number): caller.clears for caller in self.callers if caller.clears},
        }

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        """Hang up all calls."""
        for caller in self.callers:
            caller.hang_up()
        return {"stopped": len(self.callers)}

    def _alive(self) -> int:
        return sum(not caller.end_reason for caller in self.callers)

    def _stalls(self) -> int:
        return sum(caller.stalls for caller in self.callers)


def main() -> int:
    """Run the process."""
    options = argparse.ArgumentParser(description="Callers for the bench; orders on stdin.")
    options.add_argument("--url", required=True, help="the gateway")
    options.add_argument("--account-sid", required=True)
    options.add_argument("--unmarked", action="store_true", help="what is heard does not carry its number")
    given = options.parse_args()
    loop = Loop()
    secret = sys.stdin.readline().strip()  # the first line: arguments are public, a secret is not
    telephones = Telephones(loop, WebhookSender(given.url, given.url, secret), given.account_sid, unmarked=given.unmarked)
    orders = OrderChannel(
        loop,
        {
            "dial": telephones.dial,
            "begin": telephones.begin,
            "end": telephones.end,
            "report": telephones.report,
            "stop": telephones.stop,
        },
    )
    orders.send({"ready": True})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
