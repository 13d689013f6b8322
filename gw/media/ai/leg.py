"""Interface of an AI leg, and the one error of every leg.

A leg connects, returns events, and takes audio and requests. It sends through one non-blocking transport, whose buffer is
bounded. One greenlet (AI-in) connects and reads. Every failure is one `AiLegError` with a reason.
"""

from __future__ import annotations

from typing import Protocol

from gw.call.state import Reason
from gw.errors import GatewayError
from gw.protocol.ai import AiEvent


class AiLegError(GatewayError):
    """The AI leg is over. `reason`: why, and the call's reason if no other leg replaces it."""

    code = "ai_leg"

    def __init__(self, reason: Reason, detail: str, *, permanent: bool = False, expired: bool = False) -> None:
        """`permanent`: another leg would fail the same way. `expired`: the session reached its time limit."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.permanent = permanent
        self.expired = expired


class AiLeg(Protocol):
    """An AI as a call uses it, the same for every API."""

    def connect(self) -> None:
        """Connect and open a session. The caller bounds the time. Raises AiLegError."""

    def read(self) -> list[AiEvent]:
        """Wait for events. Returns [] when woken or no whole event came. Raises AiLegError when the leg is over."""

    @property
    def heard_s(self) -> float:
        """Monotonic time of the last bytes from the AI, a pong included."""

    def ping(self) -> None:
        """Request a pong, which updates `heard_s`."""

    @property
    def is_congested(self) -> bool:
        """True while the AI takes too little of what is sent: the uplink then keeps the caller's audio."""

    def send_audio(self, payload: str) -> None:
        """Send one frame of the caller, base64 as Twilio sent it."""

    def say(self, role: str, text: str) -> None:
        """Send a turn from before this session, `role` caller or agent. Comes before any audio."""

    def send_dtmf(self, digit: str) -> None:
        """Send a key the caller pressed."""

    def create_response(self, instructions: str) -> None:
        """Request a response; empty instructions: the session's own."""

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Send how much of an item the caller heard."""

    def tool_output(self, call_id: str, output: str) -> None:
        """Send the output of a tool call."""

    def wake(self) -> None:
        """Make the waiting `read` return, or the next one."""

    def close(self) -> None:
        """End the session and the socket, bounded. Idempotent."""
