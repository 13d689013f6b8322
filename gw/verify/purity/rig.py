"""Drives one TX loop through all its branches: idle, paced, starved, cleared, held, stalled, broken, stopped.

TX runs on a socket pair with small buffers, which reaches every branch within seconds. All parts are real and passed as classes,
so that a mutant can replace any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import gevent
from gevent import socket

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.media.hub.clock import Clock
from gw.media.hub.greenlets import KindGreenlet
from gw.media.transport.plain import Transport
from gw.media.tx import Ready, Tx, TxCells
from metrics.page import Page

#: The real classes. A mutant replaces one under the same name.
PARTS: Final = SimpleNamespace(
    Pacer=Pacer, Playout=Playout, Clock=Clock, Transport=Transport, Tx=Tx, TxCells=TxCells, Ready=Ready, Page=Page
)
LEAD_MS: Final = 40
FRAME: Final = b"F" * 400
#: More marks of 4 KB than the kernel buffers for a peer that does not read.
_FILL: Final = 400
_LIMIT_BYTES: Final = 64 << 10
_WAIT_S: Final = 10.0


class RigError(Exception):
    """TX did not reach the expected state."""


class Rig:
    """Runs one TX after another. `run` takes half a second."""

    def __init__(self, folder: Path, parts: Any = PARTS) -> None:
        self._parts = parts
        self._page = parts.Page.create(folder / "rig.page")
        self._cells = parts.TxCells(self._page)
        self._open: list[Any] = []

    def run(self) -> None:
        """Run every branch once. Raises RigError."""
        try:
            self._pace()
            self._hold()
            self._stall()
            self._break()
        finally:
            for thing in self._open:
                thing.close() if isinstance(thing, socket.socket) else thing.shut()
            gevent.sleep(0)
            self._page.close()

    def _make(self, *, small: bool = False) -> tuple[Any, Any, Any, KindGreenlet, socket.socket]:
        parts = self._parts
        ours, theirs = socket.socketpair()
        if small:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport = parts.Transport(ours, _LIMIT_BYTES)
        playout = parts.Playout(1000)
        tx = parts.Tx(transport, parts.Pacer(LEAD_MS), playout, parts.Clock(), self._cells)
        greenlet = KindGreenlet("tx", tx.run)
        self._open += [transport, theirs]
        greenlet.start()
        gevent.sleep(0)
        return tx, transport, playout, greenlet, theirs

    def _put(self, tx: Any, count: int = 1, *, generation: int = 0, audio: bool = True, data: bytes = FRAME) -> None:
        for _ in range(count):
            tx.put(self._parts.Ready(generation, data, audio))

    def _pace(self) -> None:
        """Run idle, a talkspurt longer than the lead, a mark, a gap, frames of an old generation, and stop."""
        tx, _, playout, greenlet, _ = self._make()
        self._put(tx, 5)
        self._put(tx, audio=False)
        _until(lambda: tx.frames_sent == 5 or greenlet.dead, greenlet)
        gevent.sleep(0.15)  # all heard: the next frame starts a talkspurt
        self._put(tx)
        gevent.sleep(0.15)  # the next frame is late: a gap
        self._put(tx, 2)
        self._put(tx, generation=playout.generation - 1)
        _until(lambda: tx.frames_sent == 8 or greenlet.dead, greenlet)
        tx.stop()
        _end(greenlet)

    def _hold(self) -> None:
        """Run two holds: a talkspurt's, longer than the lead, and a mark's."""
        tx, _, _, greenlet, _ = self._make()
        self._put(tx, 2)
        _until(lambda: tx.frames_sent == 2 or greenlet.dead, greenlet)
        tx.hold()
        self._put(tx)
        gevent.sleep(0.15)
        tx.release()
        _until(lambda: tx.frames_sent == 3 or greenlet.dead, greenlet)
        tx.hold()
        self._put(tx, audio=False)
        gevent.sleep(0.01)
        tx.release()
        _until(lambda: not tx.queue or greenlet.dead, greenlet)
        tx.stop()
        _end(greenlet)

    def _stall(self) -> None:
        """Run against a peer that stops reading, resumes, then stops permanently."""
        tx, transport, _, greenlet, peer = self._make(small=True)
        reader = gevent.spawn(transport.read)
        self._put(tx, 1)
        _until(lambda: tx.frames_sent == 1, greenlet)
        self._put(tx, 8, audio=False, data=b"m" * 30_001)
        _until(lambda: transport.waiting_bytes > 0 or greenlet.dead, greenlet)
        with gevent.Timeout(_WAIT_S, RigError("the buffered bytes were not flushed")):
            while transport.waiting_bytes and not transport.failure:
                peer.recv(1 << 16)
        self._put(tx, _FILL, audio=False, data=b"m" * 4096)
        _end(greenlet)
        reader.kill()

    def _break(self) -> None:
        """Run against a closed peer."""
        tx, _, _, greenlet, peer = self._make()
        peer.close()
        self._put(tx, 2)
        _end(greenlet)


def _until(holds: Callable[[], bool], greenlet: KindGreenlet) -> None:
    with gevent.Timeout(_WAIT_S, RigError("TX did not send the queued messages")):
        while not holds():
            gevent.sleep(0.002)
    if greenlet.exception is not None:
        raise RigError("TX failed") from greenlet.exception


def _end(greenlet: KindGreenlet) -> None:
    greenlet.join(timeout=_WAIT_S)
    if not greenlet.dead:
        greenlet.kill()
        raise RigError("TX did not end")
    if greenlet.exception is not None:
        raise RigError("TX failed") from greenlet.exception
