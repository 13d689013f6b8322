"""Questions to the media plane's production code: TX's loop sends one frame, AI-out's loop takes one turn.

The transport's stand-in states whether the kernel took the frame; the turn's wait is read where it begins. Every decision is the
production code's. Each question is asked once and its answer cached, so construct `WorkerParts` after replacing parts of the
production code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gw.call import guard
from gw.call.pacer import Pacer
from gw.call.playout import Playout
from gw.config import Config
from gw.media import ai_out as ai_out_module
from gw.media import tx as tx_module
from gw.protocol.audio import FRAME_BYTES, SILENCE_BYTE
from gw.verify.guard.claim_row import RowStore

if TYPE_CHECKING:
    from gw.media.hub.clock import Alarm


class StandIn:
    """Replacement for a dependency: exactly the attributes given."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class AiOutTurn(NamedTuple):
    """Result of one turn of AI-out."""

    fired: int  # starts of the recording; 2 means two or more
    guard_started: bool  # the guard's state afterwards
    wait_ms: int  # the longest wait until the next turn; -1: without a bound
    blocked: bool  # AI-out would have waited for the pool


class WorkerParts:
    """TX and AI-out of one call."""

    def __init__(self, rows: RowStore) -> None:
        self.row_store = rows
        self._config = Config()
        self._answers: dict[tuple[object, ...], Any] = {}
        self._cells = tx_module.TxCells(rows.page)

    def _once(self, key: tuple[object, ...], work: Callable[[], Any]) -> Any:
        found = self._answers.get(key, self)
        if found is self:
            found = self._answers[key] = work()
        return found

    def send_frame(self, *, flag: bool, taken: bool) -> bool:
        """Let TX's loop send one frame. Returns `first_audio_sent` afterwards. `taken`: the kernel took the frame."""
        return cast("bool", self._once(("frame", flag, taken), lambda: self._send_frame(flag, taken)))

    def _send_frame(self, flag: bool, taken: bool) -> bool:
        tx = self._tx(flag)

        def write(data: bytes) -> bool:
            tx.stopped = True  # one frame, then the loop ends
            return taken

        tx._transport = cast("Any", StandIn(write=write, failure=""))
        tx.queue.append(tx_module.Ready(0, b"a frame", True))
        tx.run()
        return tx.first_audio_sent

    def _tx(self, flag: bool) -> tx_module.Tx:
        transport = cast("Any", StandIn(write=lambda data: True, failure=""))
        clock = cast("Any", StandIn(wait_until=lambda deadline_s: None))
        tx = tx_module.Tx(transport, Pacer(100), Playout(1000), clock, self._cells)
        tx.first_audio_sent = flag
        return tx

    def turn(self, *, flag: bool, started: bool, room: bool, chunk: bool) -> AiOutTurn:
        """Let AI-out's loop take one turn; `chunk`: because AI-in brought audio."""
        return cast("AiOutTurn", self._once(("turn", flag, started, room, chunk), lambda: self._turn(flag, started, room, chunk)))

    def last_turn(self, *, flag: bool, started: bool, room: bool) -> AiOutTurn:
        """Let AI-out's loop end, after it was stopped."""
        return cast("AiOutTurn", self._once(("last", flag, started, room), lambda: self._turn(flag, started, room, None)))

    def _turn(self, flag: bool, started: bool, room: bool, chunk: bool | None) -> AiOutTurn:
        fired: list[bool] = []
        waits: list[float | None] = []
        call_guard = guard.RecordingGuard(enabled=True)
        call_guard.recording_started = started
        tx = self._tx(flag)
        ai_out = ai_out_module.AiOut(
            "MZ" + "0" * 32,
            tx,
            tx._playout,
            call_guard,
            lead_ms=100,
            pool_has_room=lambda: room,
            on_record=lambda: fired.append(True),
            on_first_audio=lambda sent_s: None,
        )
        if chunk:
            ai_out.playout.push("response", "item", bytes([SILENCE_BYTE]) * (3 * FRAME_BYTES))

        def wait(timeout: float | None = None) -> bool:
            waits.append(timeout)
            raise _TurnOver

        ai_out._wake = cast("Alarm", StandIn(wait=wait, set=lambda: None))
        ai_out.stopped = chunk is None
        try:
            ai_out.run()
        except _TurnOver:
            pass  # one turn was taken, and its wait began
        wait_ms = -1 if not waits or waits[0] is None else round(1000 * waits[0])
        return AiOutTurn(min(2, len(fired)), call_guard.recording_started, wait_ms, blocked=bool(fired) and not room)


class _TurnOver(Exception):  # noqa: N818  not an error: leaves the loop where it waits
    """AI-out waits."""
