"""A caller at the other end of a real downlink: AI-out and TX run, and what they send is kept."""

from __future__ import annotations

import base64
from typing import Any

import gevent

from gw.config import Agent
from gw.media.downlink import Downlink
from tests.gw.media.support import ContextMaker, Peer, call_of, transport_and_peer, until


class Listener:
    """A downlink with its greenlets. `messages`: all that reached the other end."""

    def __init__(self, contexts: ContextMaker, *, lead_ms: int = 100) -> None:
        self.context, _ = contexts.context(media={"lead_ms": lead_ms})
        self._transport, sock = transport_and_peer()
        self._peer = Peer(sock)
        self.downlink: Downlink = call_of(self.context, Agent(greeting=""), self._transport).downlink
        self.messages: list[dict[str, Any]] = []
        self._greenlets = [gevent.spawn(run) for run in (self._read, self.downlink.tx.run, self.downlink.ai_out.run)]

    def _read(self) -> None:
        while not self._peer.ended:
            self.messages.append(self._peer.text())

    @property
    def generations(self) -> list[bytes]:
        """The audio received, parted at each `clear`."""
        parts = [b""]
        for message in self.messages:
            if message["event"] == "clear":
                parts.append(b"")
            elif message["event"] == "media":
                parts[-1] += base64.b64decode(message["media"]["payload"])
        return parts

    def until_sent(self) -> list[bytes]:
        """Wait until all queued audio and its last mark arrived. Returns the generations."""
        until(lambda: self.downlink.playout.is_empty and not self.downlink.unsent_s() and not self.downlink.tx.queue)
        frames = self.downlink.tx.frames_sent
        until(lambda: sum(message["event"] == "media" for message in self.messages) == frames)
        return self.generations

    def close(self) -> None:
        self.downlink.stop()
        gevent.killall(self._greenlets)
        self._transport.shut()
        self._peer.close()
