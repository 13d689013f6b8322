"""The bench's AI: hundreds of Realtime sessions in one process that talk all the time and time what they hear.

Decides when the window is and what is told of it; what a session hears is `bench_session`'s part, what it says `bench_voice`'s.
Run as `python -m gw.bench.load.ai`; orders come on stdin: begin, end, report, stop.

Speaks just enough of the GA shape for a client that behaves; whether one does is the AI twin's part, in the tests.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from typing import Any

from gw.bench.load.loop import Desk, Loop, Samples
from gw.bench.load.session import Session
from gw.bench.load.voice import PATTERNS


class Studio:
    """The listener and all sessions."""

    def __init__(self, loop: Loop, pattern: str, tls: ssl.SSLContext | None) -> None:
        self.loop = loop
        self._tls = tls
        self.pattern = pattern
        self.sessions: list[Session] = []
        self.uplink = Samples()
        self.foreign = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._before: dict[int, tuple[int, int]] = {}
        self._ended: dict[str, Any] = {}
        loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sessions.append(Session(len(self.sessions), self, sock))

    def begin(self, _: dict[str, Any]) -> dict[str, Any]:
        """The window begins."""
        self.uplink.clear()
        self.foreign = 0
        for session in self.sessions:
            session.begin()
        self._before = {id(session): (session.lost, session.disorder) for session in self.sessions}
        self.loop.begin()
        return {"standing": self._standing()}

    def end(self, _: dict[str, Any]) -> dict[str, Any]:
        """The window ends; the sessions go on."""
        self.loop.measuring = False
        before = self._before
        self._ended = {
            "standing": self._standing(),
            "ended": sorted({session.over for session in self.sessions if session.over}),
            "foreign": self.foreign,
            "lost": sum(session.lost - before.get(id(session), (0, 0))[0] for session in self.sessions),
            "disorder": sum(session.disorder - before.get(id(session), (0, 0))[1] for session in self.sessions),
            "stalls": sum(session.plug.stalls for session in self.sessions),
        }
        return {}

    def report(self, _: dict[str, Any]) -> dict[str, Any]:
        """What came in the window. Counting takes a second, in which nothing is sent or read."""
        return {
            **self._ended,
            "uplink": self.uplink.summary(),
            "own": self.loop.late.summary(),
            "interruptions": {
                str(session.call): session.voice.interruptions for session in self.sessions if session.voice.interruptions
            },
        }

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        for session in self.sessions:
            session.end("bench")
        return {"stopped": len(self.sessions)}

    def _standing(self) -> int:
        return sum(not session.over for session in self.sessions)


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def main() -> int:
    """This process's body."""
    options = argparse.ArgumentParser(description="An AI for the bench; orders on stdin.")
    options.add_argument("--pattern", choices=PATTERNS, default="steady")
    options.add_argument("--certificate", help="speak TLS, and show this")
    options.add_argument("--key", help="the certificate's")
    given = options.parse_args()
    loop = Loop()
    studio = Studio(loop, given.pattern, _context(given.certificate, given.key) if given.certificate else None)
    desk = Desk(loop, {"begin": studio.begin, "end": studio.end, "report": studio.report, "stop": studio.stop})
    desk.say({"ready": True, "port": studio.port})
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
