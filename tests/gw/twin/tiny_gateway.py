"""A minimal server for the Twilio twin: TwiML and webhooks over HTTP, a scripted websocket, one port."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from urllib.parse import parse_qsl

from gevent import socket
from gevent.server import StreamServer
from websockets.http11 import Request

from gw.twin import speech
from gw.twin.websocket import ClosedError, TimedOutError, TwinSocket, answer_request, read_request
from tests.timing import scaled

#: Bound on the end of a call of seconds.
WAIT_S = scaled(20.0)
WORDS = tuple(speech.script(speech.load("weasels")[:1600]))  # ten frames
PARAMETERS = '<Parameter name="token" value="t-123"/><Parameter name="agent" value="default"/>'

Talk = Callable[["Stream"], None]


class Stream:
    """A stream as the server sees it."""

    def __init__(self, websocket: TwinSocket, request: Request) -> None:
        self.websocket = websocket
        self.request = request
        self.messages: list[dict] = []  # type: ignore[type-arg]
        self.sid = ""

    def next(self) -> dict:  # type: ignore[type-arg]
        message = json.loads(self.websocket.receive().data)
        self.messages.append(message)
        if message["event"] == "start":
            self.sid = message["streamSid"]
        return message

    def until(self, event: str) -> dict:  # type: ignore[type-arg]
        while (message := self.next())["event"] != event:
            pass
        return message

    def send(self, **message: object) -> None:
        self.websocket.send_text(json.dumps({"streamSid": self.sid, **message}).encode())

    def media(self, audio: bytes) -> None:
        self.send(event="media", media={"payload": base64.b64encode(audio).decode()})

    def mark(self, name: str) -> None:
        self.send(event="mark", mark={"name": name})

    def clear(self) -> None:
        self.send(event="clear")

    def heard(self) -> bytes:
        """Return the caller's audio so far."""
        return b"".join(base64.b64decode(one["media"]["payload"]) for one in self.messages if one["event"] == "media")


def echo(stream: Stream) -> None:
    """Send every frame back until the caller stops. A caller may have closed before the last frames are read: read them too."""
    while (message := stream.next())["event"] != "stop":
        if message["event"] == "media":
            with suppress(ClosedError):
                stream.media(base64.b64decode(message["media"]["payload"]))


class TinyGateway:
    """Answers `POST` with the TwiML of its path, or with nothing; upgrades `/media`."""

    def __init__(self, talk: Talk = echo, twiml: dict[str, str] | None = None, status: int = 200) -> None:
        self.talk = talk
        self.status = status
        self.twiml = twiml if twiml is not None else {}
        self.refuse_upgrade = False
        self.posts: list[tuple[str, dict[str, str], dict[str, str]]] = []  # path, headers, fields
        self.streams: list[Stream] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)

    def __enter__(self) -> TinyGateway:
        self._server.start()
        self.twiml.setdefault("/twilio/voice", document(f"{self.url.replace('http', 'ws')}/media"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop(timeout=1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.posts]

    def fields_of(self, path: str) -> list[dict[str, str]]:
        return [fields for its, _, fields in self.posts if its == path]

    def _serve(self, sock: socket.socket, address: object) -> None:
        if sock.recv(1, socket.MSG_PEEK) == b"P":
            self._answer(sock)
        else:
            self._upgrade(sock)

    def _answer(self, sock: socket.socket) -> None:
        reader = sock.makefile("rb")
        path = reader.readline().split()[1].decode()
        headers: dict[str, str] = {}
        while line := reader.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", "0"))).decode()
        self.posts.append((path, headers, dict(parse_qsl(body, keep_blank_values=True))))
        text = self.twiml.get(path, "").encode()
        head = f"HTTP/1.1 {self.status} X\r\nContent-Type: text/xml\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + text)

    def _upgrade(self, sock: socket.socket) -> None:
        asked = read_request(sock, 5.0, 1 << 20)
        assert asked is not None
        protocol, request = asked
        response = protocol.reject(403, "no\n") if self.refuse_upgrade else protocol.accept(request)
        websocket = answer_request(sock, protocol, response, 5.0)
        if websocket is None:
            return
        stream = Stream(websocket, request)
        self.streams.append(stream)
        try:
            self.talk(stream)
            websocket.close(1000, "enough")
        except (ClosedError, TimedOutError):
            websocket.release()


def document(url: str, inside: str = "", connect: str = "", after: str = "<Hangup/>") -> str:
    """Return TwiML that opens a stream."""
    stream = f'<Stream url="{url}" statusCallback="/twilio/stream">{inside}</Stream>'
    return f"<Response><Connect{connect}>{stream}</Connect>{after}</Response>"
