"""Telephone bridge made of threads and queues, the design of most first attempts.

Four threads a call. RX reads the telephone's messages and decodes them; AI-out forwards the caller's audio; AI-in reads the
AI's events, cuts its audio into frames and queues them; TX takes a frame, encodes it with base64 and json.dumps, sleeps until
it is due, and sends it. The websockets are the library's threaded ones, which add a reading thread each. Deadlines are
absolute, so lateness does not add up; queues are bounded; a call's end ends its threads. Runs in a separate environment. Frames
pass unchanged, mu-law both ways.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import lifeline
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.sync.server import ServerConnection, serve

FRAME_BYTES: Final = 160
PTIME_S: Final = 0.02
#: A minute of the AI's audio, two seconds of the caller's.
_PLAYOUT_FRAMES: Final = 3000
_UPLINK_FRAMES: Final = 100
_FORMAT: Final = {"format": {"type": "audio/pcmu"}}
_TWIML: Final = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="ws://127.0.0.1:{port}/media"/></Connect></Response>'
)


class Call:
    """One call; `run` is the body of its RX thread."""

    def __init__(self, phone: ServerConnection, ai_url: str) -> None:
        self._phone = phone
        self._ai_url = ai_url
        self._stream_sid = ""
        self._uplink: queue.Queue[bytes | None] = queue.Queue(_UPLINK_FRAMES)
        self._playout: queue.Queue[tuple[int, bytes] | None] = queue.Queue(_PLAYOUT_FRAMES)  # talkspurt, frame
        self._rest = b""
        self._sending = threading.Lock()  # no frame of an interrupted talkspurt may follow its clear
        self._talkspurt = 0

    def run(self) -> None:
        while True:
            message = json.loads(self._phone.recv())
            if message["event"] == "start":
                self._stream_sid = message["start"]["streamSid"]
                break
        headers = {"Authorization": "Bearer none-is-needed-for-the-twin"}
        with connect(self._ai_url, additional_headers=headers, compression=None) as voice:
            threads = [
                threading.Thread(target=body, args=arguments, daemon=True, name=name)
                for name, body, arguments in (
                    ("ai-in", self._ai_in, (voice,)),
                    ("ai-out", self._ai_out, (voice,)),
                    ("tx", self._tx, ()),
                )
            ]
            for thread in threads:
                thread.start()
            try:
                self._rx()
            finally:
                voice.close()
                for waiting in (self._uplink, self._playout):
                    _discard(waiting)
                    waiting.put(None)  # ends its thread
                for thread in threads:
                    thread.join(5.0)

    def _rx(self) -> None:
        for text in self._phone:
            message = json.loads(text)
            if message["event"] == "media":
                audio = base64.b64decode(message["media"]["payload"])
                if self._uplink.full():
                    self._uplink.get()
                self._uplink.put(audio)
            elif message["event"] == "stop":
                return

    def _ai_out(self, voice: Connection) -> None:
        try:
            while (audio := self._uplink.get()) is not None:
                event = {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
                voice.send(json.dumps(event))
        except ConnectionClosed:
            self._phone.close()

    def _ai_in(self, voice: Connection) -> None:
        try:
            for text in voice:
                self._on_event(voice, json.loads(text))
        except ConnectionClosed:
            pass
        self._phone.close()

    def _on_event(self, voice: Connection, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "response.output_audio.delta":
            audio = self._rest + base64.b64decode(event["delta"])
            whole = len(audio) - len(audio) % FRAME_BYTES
            for at in range(0, whole, FRAME_BYTES):
                self._playout.put((self._talkspurt, audio[at : at + FRAME_BYTES]))
            self._rest = audio[whole:]
        elif kind == "session.created":
            session = {"type": "realtime", "audio": {"input": _FORMAT, "output": _FORMAT}}
            voice.send(json.dumps({"type": "session.update", "session": session}))
        elif kind == "session.updated":
            voice.send(json.dumps({"type": "response.create"}))
        elif kind == "input_audio_buffer.speech_started":
            with self._sending:
                _discard(self._playout)
                self._rest = b""
                self._talkspurt += 1
                self._phone.send(json.dumps({"event": "clear", "streamSid": self._stream_sid}))

    def _tx(self) -> None:
        due_s = 0.0
        try:
            while (queued := self._playout.get()) is not None:
                talkspurt, frame = queued
                payload = base64.b64encode(frame).decode()
                message = json.dumps({"event": "media", "streamSid": self._stream_sid, "media": {"payload": payload}})
                now_s = time.monotonic()
                if due_s < now_s - 1.0:
                    due_s = now_s  # a new talkspurt, or a stall too long to catch up with
                if due_s > now_s:
                    time.sleep(due_s - now_s)
                with self._sending:
                    if talkspurt == self._talkspurt:
                        self._phone.send(message)
                due_s += PTIME_S
        except ConnectionClosed:
            return


def _discard(waiting: queue.Queue[Any]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        return


def _webhook(media_port: int) -> type[BaseHTTPRequestHandler]:
    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = _TWIML.format(port=media_port).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No access log, as in the other designs."""

    return Webhook


def main() -> None:
    options = argparse.ArgumentParser(description="A telephone bridge made of threads.")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--ai-url", required=True)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    lifeline.hold()

    def handle(phone: ServerConnection) -> None:
        try:
            Call(phone, given.ai_url).run()
        except ConnectionClosed:
            return

    with serve(handle, "127.0.0.1", 0, compression=None) as media:
        port = media.socket.getsockname()[1]
        threading.Thread(target=media.serve_forever, daemon=True, name="media").start()
        ThreadingHTTPServer(("127.0.0.1", given.port), _webhook(port)).serve_forever()


if __name__ == "__main__":
    main()
