"""The AI leg as the call sees it, and the one behind a websocket.

A leg connects, gives events, takes audio and wishes. Everything it takes goes out by one non-blocking transport; what that does not
take is bounded there. One greenlet (AI-in) connects and reads. However a leg fails, it is one `AiLegError` with a reason.
"""

from __future__ import annotations

from typing import Protocol

from gw.call.state import Reason
from gw.errors import GatewayError
from gw.protocol.ai import AiEvent


class AiLegError(GatewayError):
    """The AI leg is over. `reason`: what the call ends for."""

    code = "ai_leg"

    def __init__(self, reason: Reason, detail: str, *, permanent: bool = False, expired: bool = False) -> None:
        """`permanent`: another leg would fail alike. `expired`: the session's time was over."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.permanent = permanent
        self.expired = expired


class AiLeg(Protocol):
    """What a call needs of an AI, whatever API it speaks."""

    def connect(self) -> None:
        """Reach the AI and open a session. The caller bounds the time. Raises AiLegError."""

    def read(self) -> list[AiEvent]:
        """Wait for events; [] when woken or nothing is whole yet. Raises AiLegError when the leg is over."""

    @property
    def heard_s(self) -> float:
        """When the AI last sent anything, a pong included; monotonic."""

    def ping(self) -> None:
        """Make an AI that is there say so."""

    @property
    def is_congested(self) -> bool:
        """The AI does not take what we send: keep the caller's audio."""

    def send_audio(self, payload: str) -> None:
        """One frame of the caller, base64 as Twilio sent it."""

    def say(self, role: str, text: str) -> None:
        """Tell the session of a turn before it, `role` caller or agent. Before any audio."""

    def send_dtmf(self, digit: str) -> None:
        """The caller pressed a key."""

    def create_response(self, instructions: str) -> None:
        """Ask for a response; empty instructions: the session's own."""

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Tell the AI how much of an item was heard."""

    def tool_output(self, call_id: str, output: str) -> None:
        """Answer a tool call."""

    def wake(self) -> None:
        """Make the reader return."""

    def close(self) -> None:
        """End the session and the socket, bounded. Idempotent."""
