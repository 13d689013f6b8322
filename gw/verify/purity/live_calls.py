"""Real calls between the twins, through a media plane in this process.

The plane has every part of a worker except the hold monitor, which needs the same switch tracer as the watch. Its bus ends at a
sink that acknowledges every event and does nothing. The calls cover the usual ends: the agent hangs up, the caller hangs up, the
caller interrupts, the line breaks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

import gevent
from gevent import socket
from gevent.server import StreamServer

from gw import bus
from gw.config import Agent, Config, Media, Ops, Secrets, Server
from gw.media.admission.token_ledger import TokenLedger
from gw.media.bus_client import BusClient
from gw.media.http.server import MediaServer
from gw.media.hub.greenlets import spawn
from gw.media.shared.context import MediaContext
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.faults import with_fault
from gw.twin.twilio.stream import CallPlan
from metrics.page import Page

#: Bound on all calls, for a slow machine: each lasts three or four seconds, all run concurrently.
CALLS_S: Final = 30.0
_ACKED_S: Final = 3.0


class World:
    """Context manager that runs the media plane and the twins."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the bus socket and the metric pages."""
        self._page = Page.create(folder / "pages" / "worker-0.page")
        self._ledger = TokenLedger(folder / "pages" / "tokens.ledger")
        self.bus_path = folder / "bus.sock"
        bus_end = socket.socket(socket.AF_UNIX)
        bus_end.bind(str(self.bus_path))
        bus_end.listen(4)
        self._sink = StreamServer(bus_end, _acknowledge)
        self.ai = AiTwin(lambda index, path: _SCRIPTS[index % len(_SCRIPTS)])
        self.ai.start()
        listener = socket.create_server(("127.0.0.1", 0))
        address = "{}:{}".format(*listener.getsockname())
        self._config = Config(
            server=Server(listen=address),
            ops=Ops(var_dir=str(folder)),
            media=Media(lead_ms=100),
            agents={"default": Agent(provider="openai", base_url=self.ai.url)},
            secrets=Secrets(openai_api_key="none-is-needed-for-the-twin", token_key="of this run"),
        )
        self._context = MediaContext(self._config, self._page, self._ledger)
        self._bus = BusClient(
            self.bus_path,
            0,
            self._page,
            calls=self._context.open_calls,
            status=lambda unacked: bus.WorkerStatus(self._context.streams, False, unacked, -1.0, -1.0),
            on_command=lambda command: None,
        )
        self._context.emit = self._bus.emit
        self._server = MediaServer(listener, self._context)
        self.twilio = TwilioTwin(f"http://{address}")
        self._helpers: list[gevent.Greenlet[..., object]] = []

    def __enter__(self) -> World:
        self._sink.start()
        self._helpers = [spawn("bus", self._bus.run), spawn("other", self._server.watch)]
        self._server.start()
        self.twilio.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.twilio.stop()
        self._server.stop(timeout=1.0)
        self._bus.flush(_ACKED_S)
        self._bus.stop()
        gevent.killall(self._helpers, timeout=1.0)
        self._sink.stop(timeout=0.1)
        self.ai.stop()
        self._ledger.close()
        self._page.close()

    def connects(self, kind: str, address: object) -> bool:
        """The two connections a worker may open: to the AI and to control."""
        return (kind == "ai_in" and address == self.ai.address) or (kind == "bus" and address == str(self.bus_path))

    def call(self) -> list[TwinCall]:
        """Run all calls concurrently to their ends. The n-th AI session plays the n-th script."""
        calls = []
        for n, plan in enumerate(_PLANS, 1):
            calls.append(self.twilio.place(plan))
            self.ai.wait_for(lambda ai, n=n: len(ai.sessions) >= n, CALLS_S / len(_PLANS))  # type: ignore[misc]
        self.twilio.wait(CALLS_S)
        return calls


def _acknowledge(sock: socket.socket, address: object) -> None:
    """Acknowledge every event of one worker's connection and discard it."""
    reader = bus.Reader.of_events()
    while data := sock.recv(65536):
        for message in reader.feed(data):
            if isinstance(message, bus.Numbered):
                sock.sendall(bus.pack(bus.Ack(message.n)))


_VOICE: Final = lasting(12)
_PHRASE: Final = speech.load("monkeys")[2400:8800]
_SCRIPTS: Final = (
    # two answers and a goodbye, the agent hangs up
    AiScript(greeting=_VOICE[:6403], answers=(_VOICE[8000:13_001],), goodbye=_VOICE[:4803], hang_up_after=3),
    AiScript(greeting=_VOICE, answers=(_VOICE[:5000],), whole=True),  # interrupted
    AiScript(greeting=_VOICE[:8000], speed=0.6),  # slower than speech: gaps
    AiScript(greeting=_VOICE[:32_000]),  # the line breaks in the middle of it
    AiScript(greeting=_VOICE[:479]),  # three frames, then silence; the caller presses a key and hangs up
)
_PLANS: Final = (
    CallPlan(speech=tuple(speech.script(1300, _PHRASE, 1700, _PHRASE, 3000)), hang_up=False, max_s=CALLS_S),
    CallPlan(speech=tuple(speech.script(1500, _PHRASE, 1500))),
    CallPlan(speech=tuple(speech.script(3000))),
    with_fault(replace(CallPlan(speech=tuple(speech.script(3000))), max_s=CALLS_S), "reset"),
    CallPlan(speech=tuple(speech.script(1000)), hooks={20: lambda call: call.press("5")}),
)
