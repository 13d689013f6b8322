"""AI process of the fault bench: the AI twin with scripts drawn from a seed.

    python -m tests.faults.links.ai ORDERS_SOCKET SEED

A session's script depends only on the seed and the session's index. One order makes the next sessions misbehave, as a failing AI
does; network faults are the proxy's. Another order returns the ledgers.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

from gevent import socket

from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript, Fault, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.sound import FRAME_BYTES, SILENCE
from tests.faults.links.orders import Order, serve_until_stopped


class _Numbered(AiTwin):
    """AI twin that records the client port of each session, which identifies it for the proxy."""

    ports: dict[int, int]  # by session index

    def _on_connection(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.ports[self._connections] = address[1]
        super()._on_connection(sock, address)


class FaultyAi:
    """The twin, and the faults ordered for its next sessions."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._next: deque[Fault] = deque()
        self._faults: dict[int, Fault] = {}  # by session index
        self.twin = _Numbered(self._script)
        self.twin.ports = {}

    def _script(self, index: int, path: str) -> AiScript:
        chance = random.Random(f"{self._seed}/ai/{index}")
        script = AiScript(
            greeting=lasting(chance.uniform(3.0, 6.0)),
            answers=(speech.load("first-in-line"), speech.load("nobody-available")),
            agent_words=("We are here.",),
            hang_up_after=2,
            seed=index,
            speed=chance.choice((3.0, 4.0, 6.0)),
        )
        if self._next:
            fault = self._faults[index] = self._next.popleft()
            return script.with_fault(fault)
        return script

    def fail(self, kind: Fault, times: int) -> None:
        """Make the next `times` sessions misbehave."""
        self._next.extend([kind] * times)

    def well(self) -> int:
        """Cancel the ordered faults. Returns their number."""
        left = len(self._next)
        self._next.clear()
        return left

    def sessions(self) -> list[dict[str, Any]]:
        """Return a summary of each session."""
        return [
            {**_view(ledger), "fault": self._faults.get(ledger.index, ""), "port": self.twin.ports[ledger.index]}
            for ledger in self.twin.sessions
        ]


def _view(ledger: AiLedger) -> dict[str, Any]:
    said = b"".join(bytes(one.audio) + SILENCE * (-len(one.audio) % FRAME_BYTES) for one in ledger.responses)
    return {
        "index": ledger.index,
        "connected_s": ledger.connected_s,
        "tag": ledger.tag,
        "said_bytes": sum(len(one.audio) for one in ledger.responses),
        "padded_bytes": len(said),
        "padded_sha": hashlib.sha256(said).hexdigest(),
        "statuses": [one.status for one in ledger.responses],
        "uplink_bytes": len(ledger.uplink),
        "closed_by": ledger.closed_by,
        "over": ledger.is_over,
    }


def main(orders: Path, seed: str) -> None:
    ai = FaultyAi(seed)
    with ai.twin as twin:
        table: dict[str, Order] = {"url": lambda: twin.url, "fail": ai.fail, "well": ai.well, "sessions": ai.sessions}
        serve_until_stopped(orders, table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
