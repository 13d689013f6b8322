"""Interface of an AI leg, and the one error of every leg.

A leg connects, returns events, and takes audio and requests. It sends through one non-blocking transport, whose buffer is
bounded. One greenlet (AI-in) connects and reads. Every failure is one `AiLegError` with a reason.
"""

from __future__ import annotations

from typing import Literal, Protocol

from gw.call.state import Reason
from gw.errors import GatewayError
from gw.protocol.ai import AiEvent

#: Speaker of a turn that is added to the AI's conversation.
Role = Literal["caller", "agent", "system"]


class AiLegError(GatewayError):
    """The AI leg is over. `reason`: why, and the call's reason if no other leg replaces it."""

    code = "ai_leg"

    def __init__(self, reason: Reason, detail: str, *, permanent: bool = False, expired: bool = False, wait_ms: int = 0) -> None:
        """`permanent`: another leg would fail the same way. `expired`: the session reached its time limit.

        `wait_ms`: the pause the AI asks for before the next attempt; 0: unknown.
        """
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.permanent = permanent
        self.expired = expired
        self.wait_ms = wait_ms


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

    def say(self, role: Role, text: str, item_id: str = "", after: str = "") -> None:
        """Add a turn, or a direction of the system, to the AI's conversation.

        `item_id`: at most 32 characters, unique in the session; empty: the AI assigns one. `after`:
        the item before it; empty: the last.
        """

    def delete_item(self, item_id: str) -> None:
        """Remove an item from the AI's conversation."""

    def send_keys(self, keys: str) -> None:
        """Send keys the caller pressed. The response to them is requested separately."""

    def create_response(self, *, with_tools: bool = True) -> None:
        """Request a response. `with_tools` False: it calls none."""

    def cancel(self) -> None:
        """Request the end of the response under way, if one is."""

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Send how much of an item the caller heard."""

    def state_call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a tool call of an earlier session to the AI's conversation. Its output follows by `tool_output`."""

    def tool_output(self, call_id: str, output: str) -> None:
        """Send the output of a tool call."""

    def approve_mcp(self, request_id: str, *, approves: bool) -> None:
        """Answer whether the provider may call a tool of a remote MCP server."""

    def wake(self) -> None:
        """Make the waiting `read` return, or the next one."""

    def close(self) -> None:
        """End the session and the socket, bounded. Idempotent."""
