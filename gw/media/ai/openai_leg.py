"""AI leg for OpenAI Realtime (GA) and APIs that speak it, over TCP or TLS."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Final

from gevent import socket
from websockets.headers import build_host
from websockets.uri import parse_uri

from gw.call.limits import ai_reads
from gw.call.state import Reason, ai_reason
from gw.config import MAX_RESULT_BYTES, Agent, Tool
from gw.errors import ProtocolError, close_code
from gw.media.ai.leg import AiLegError, Role
from gw.media.transport.plain import Transport
from gw.media.transport.tls import TlsTransport
from gw.media.transport.websocket import LegClosedError, MessageReader, WebSocket
from gw.protocol import openai_realtime
from gw.protocol.ai import AiEvent, ResponseAlive, Unreadable
from gw.protocol.websocket.frames import NORMAL
from gw.protocol.websocket.handshake import ClientHandshake, HandshakeError

#: One event from the AI. A delta is some kilobytes. Longer ones are split; other long events, such as items that carry audio, are
#: skipped.
MAX_MESSAGE_BYTES: Final = 16 << 20

#: Bytes that may wait for the AI: the longest output of a tool, whose characters may take six bytes each, and five seconds of
#: caller audio in its JSON. More means that the AI does not read.
MAX_WAITING_BYTES: Final = 6 * MAX_RESULT_BYTES + (128 << 10)

#: The kernel's send buffer. By default the kernel takes megabytes for a proxy on this machine.
SEND_BUFFER_BYTES: Final = 64 << 10

#: Above this the caller's audio waits in the uplink, which can drop its oldest, and not in the transport.
CONGESTED_BYTES: Final = 16 << 10

#: Faults of one event's content. Such an event is skipped.
SKIPPED: Final = ("bad_json", "bad_type", "missing_field", "bad_base64")

#: RFC 6585 4.
TOO_MANY_REQUESTS: Final = 429

#: Client errors that a retry may pass: a request that took too long or came too early (RFC 9110, RFC 8470).
_MAY_PASS: Final = (408, 425)


def _parse(data: bytes) -> AiEvent:
    """Parse one event; return Unreadable for one whose content is at fault. Raises ProtocolError."""
    try:
        return openai_realtime.parse(data)
    except ProtocolError as error:
        if error.code not in SKIPPED:
            raise
        return Unreadable(error.code, error.detail)


class OpenAiLeg:
    """One call's session with OpenAI Realtime."""

    __slots__ = (
        "_agent",
        "_api_key",
        "_close_code",
        "_dialect",
        "_mcp_tokens",
        "_on_pongs",
        "_reader",
        "_socket",
        "_tls",
        "_tools",
        "heard_s",
        "transport",
    )

    def __init__(
        self,
        agent: Agent,
        api_key: str,
        tls: ssl.SSLContext,
        on_pongs: Callable[[float], None] = lambda count: None,
        tools: Mapping[str, Tool] = MappingProxyType({}),
        mcp_tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`tls`: built once per process; building one takes 24 ms. `on_pongs`: receives the number of pings answered.

        `tools`: the configured ones. `mcp_tokens`: of remote MCP servers, by variable.
        """
        self._agent = agent
        self._api_key = api_key
        self._tls = tls
        self._on_pongs = on_pongs
        self._tools = tools
        self._mcp_tokens = mcp_tokens
        self._close_code = NORMAL
        self._dialect = openai_realtime.Dialect()
        self._socket: WebSocket | None = None
        self._reader: MessageReader[AiEvent] | None = None
        self.transport: Transport | TlsTransport | None = None
        self.heard_s = monotonic()

    def connect(self) -> None:
        url = openai_realtime.url(self._agent.base_url, self._agent.model)
        uri = parse_uri(url)
        try:
            sock = socket.create_connection((uri.host, uri.port))
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot carry
            raise AiLegError(Reason.AI_UNREACHABLE, f"cannot reach {uri.host}:{uri.port}: {error}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        transport = (TlsTransport if uri.secure else Transport)(sock, MAX_WAITING_BYTES, reads=ai_reads())
        self.transport = transport
        if isinstance(transport, TlsTransport):
            try:
                transport.start_tls(self._tls, uri.host)
            except (ssl.SSLError, OSError) as error:
                raise AiLegError(Reason.AI_UNREACHABLE, f"TLS with {uri.host}: {error}") from error
        host = build_host(uri.host, uri.port, uri.secure)
        handshake = ClientHandshake(host, uri.resource_name, openai_realtime.headers(self._api_key), os.urandom(16))
        transport.write(handshake.request)
        behind = self._shake_hands(transport, handshake)
        self._socket = WebSocket(
            transport, MAX_MESSAGE_BYTES, is_client=True, first=behind, may_skip=openai_realtime.may_skip, on_pongs=self._on_pongs
        )
        self._reader = MessageReader(self._socket, _parse, openai_realtime.split)
        self._send(self._dialect.session_update(self._agent, self._tools, self._mcp_tokens))

    def _shake_hands(self, transport: Transport | TlsTransport, handshake: ClientHandshake) -> bytes:
        """Read the answer to the upgrade. Returns what was read behind it. Raises AiLegError when it is not a 101."""
        while True:
            data = transport.read()
            if not data:
                given_up = (
                    "given up during the handshake" if data is None else "the AI closed the connection during the handshake"
                )
                raise AiLegError(Reason.AI_LOST, transport.why or given_up)
            try:
                behind = handshake.receive(data)
            except HandshakeError as error:
                raise _refused(error) from error
            if behind is not None:
                return behind

    def read(self) -> list[AiEvent]:
        assert self._reader is not None
        try:
            events = self._reader.read()
        except ProtocolError as error:
            self._close_code = close_code(error.code)
            raise AiLegError(ai_reason(error.code), error.detail, permanent=error.code == "wrong_format") from error
        except LegClosedError as error:
            if error.failure == "stalled":
                raise AiLegError(Reason.AI_LEG_STALLED, "the AI does not read what the gateway sends") from error
            raise _closed(error) from error
        self.heard_s = monotonic()
        if not events and self._socket is not None and self._socket.has_begun:
            return [ResponseAlive("")]  # an event of megabytes is on its way
        return events

    def ping(self) -> None:
        if self._socket is not None:
            self._socket.ping()

    @property
    def is_congested(self) -> bool:
        return self.transport is not None and self.transport.waiting_bytes > CONGESTED_BYTES

    def send_audio(self, payload: str) -> None:
        self._send(openai_realtime.append(payload))

    def say(self, role: Role, text: str, item_id: str = "", after: str = "") -> None:
        if role == "system":
            self._send(self._dialect.system_text(text))
        else:
            self._send(self._dialect.restate_turn(role, text, item_id, after))

    def delete_item(self, item_id: str) -> None:
        self._send(self._dialect.delete_item(item_id))

    def send_keys(self, keys: str) -> None:
        """Send the keys as text: the API has no keys."""
        self._send(self._dialect.user_text(f"Keys: {keys}"))

    def create_response(self, *, with_tools: bool = True) -> None:
        self._send(self._dialect.response_create(with_tools=with_tools))

    def cancel(self) -> None:
        self._send(self._dialect.cancel())

    def truncate(self, item_id: str, heard_ms: int) -> None:
        self._send(self._dialect.truncate(item_id, heard_ms))

    def state_call(self, call_id: str, name: str, arguments: str) -> None:
        self._send(self._dialect.function_call(call_id, name, arguments))

    def tool_output(self, call_id: str, output: str) -> None:
        self._send(self._dialect.tool_output(call_id, output))

    def approve_mcp(self, request_id: str, *, approves: bool) -> None:
        self._send(self._dialect.mcp_approval(request_id, approves=approves))

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            self._socket.send_text(message)

    def wake(self) -> None:
        if self.transport is not None:
            self.transport.wake()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(self._close_code, "")
        if self.transport is not None:
            self.transport.shut()


def _closed(error: LegClosedError) -> AiLegError:
    """Interpret the AI's close. OpenAI ends a session at its time limit with 1001, one that it refuses permanently with 4000."""
    if not error.clean:
        return AiLegError(Reason.AI_LOST, str(error))
    reason = error.close_reason.lower()
    expired = "maximum duration" in reason or "expired" in reason
    return AiLegError(Reason.AI_CLOSED, str(error), permanent=4000 <= error.close_code < 5000 and not expired, expired=expired)


def _refused(error: HandshakeError) -> AiLegError:
    status = error.status
    if not status:
        return AiLegError(Reason.AI_REFUSED, f"the AI's answer to the upgrade is not a websocket: {error}")
    detail = f"the AI answered HTTP {status} to the upgrade"
    if status == TOO_MANY_REQUESTS:
        return AiLegError(Reason.AI_RATE_LIMITED, detail, wait_ms=error.retry_after_s * 1000)
    return AiLegError(Reason.AI_REFUSED, detail, permanent=400 <= status < 500 and status not in _MAY_PASS)
