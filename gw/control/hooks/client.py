"""Signs and sends requests to the user's endpoints, each within one deadline.

Each request has its own connection: an endpoint may close a kept one just when the next request is sent, and it would then be
unclear whether that was received. Redirects are not followed, proxies of the environment not used, bodies not decompressed. A
caller whose greenlet is killed closes the connection.

    failed         sent   cause
    refused        no     an address that is not public or allowed
    busy           no     the circuit is open, or the queue is full
    unreachable    no     no address, no connection, no TLS
    timeout        maybe  no whole answer before the deadline
    lost           yes    the connection ended, or carried something else than an answer
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final, Literal, NamedTuple, get_args

from gw.bounded import OutOfTimeError, within
from gw.config import VERSION, Config
from gw.config.hook_url import HookUrl, Network, parse_hook_url, parse_networks
from gw.control.hooks.addresses import AddressRefusedError, LookupFailedError, Resolver, check
from gw.control.hooks.circuit import Circuit
from gw.control.hooks.places import Places, QueueFullError
from gw.control.hooks.wire import CHUNK_COST, HEAD_BYTES, BrokenError, UnconnectedError, Wire, connect
from gw.errors import GatewayError
from gw.protocol.hooks import signature
from gw.protocol.hooks.tool_call import DETAIL_BYTES, KEY_HEADER
from metrics import declare
from metrics.page import Page

HookKind = Literal["tool", "event", "route"]
Failure = Literal["refused", "busy", "unreachable", "timeout", "lost"]
#: For metrics: the kind of an answer, or a failure.
Outcome = Literal[
    "ok", "too_large", "redirect", "client_error", "server_error", "refused", "busy", "unreachable", "timeout", "lost"
]

#: Failures that count for the circuit; so does a status 5xx.
_COUNTED: Final[frozenset[Failure]] = frozenset({"unreachable", "timeout", "lost"})

# urllib3 would log an endpoint's malformed headers, with a traceback.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class HookRequest(NamedTuple):
    """A signed request."""

    url: HookUrl
    headers: dict[str, str]
    body: bytes


class HookAnswer(NamedTuple):
    """An endpoint's answer. `body`: its beginning, where it is longer than the limit and than DETAIL_BYTES."""

    status: int
    body: bytes
    retry_after: str


class HookError(GatewayError):
    """A request without an answer. `sent`: a part of it may have reached the endpoint."""

    code = "hook_failed"

    def __init__(self, kind: Failure, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.kind: Failure = kind
        self.sent = sent


class _Progress:
    """The state of one request under way."""

    __slots__ = ("began_s", "circuit", "wire")

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.circuit: Circuit | None = None  # once it permitted this request
        self.wire: Wire | None = None

    @property
    def sent(self) -> bool:
        return self.wire is not None and self.wire.sent


class HookClient:
    """Requests of one kind: tools, events and routes have separate places, queues and circuits."""

    def __init__(
        self,
        secrets: Sequence[str],
        networks: Sequence[Network],
        *,
        observe: Callable[[Outcome, float], None] = lambda outcome, seconds: None,
        resolver: Resolver | None = None,
        places: Places | None = None,
    ) -> None:
        """`secrets`: the present one, then the former one. `networks`: those of hooks.allow_networks. `observe`: gets the outcome
        and the duration of each request."""
        self._secrets = [secret for secret in secrets if secret]
        self._networks = networks
        self._observe = observe
        self._resolver = resolver or Resolver()
        self._places = places or Places()
        self._circuits: dict[tuple[str, int], Circuit] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Built once, in 24 ms: it reads the system's certificates."""
        return ssl.create_default_context()

    def open_tls(self) -> None:
        """Build the TLS context now, rather than in the first request."""
        assert self._tls

    def prepare(self, url: str, body: bytes, key: str = "") -> HookRequest:
        """Sign a request that is sent soon. `key`: its Idempotency-Key. Raises ValueError for an invalid URL."""
        parts = parse_hook_url(url)
        headers = {
            "Host": parts.authority,
            "User-Agent": f"Submilli/{VERSION}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Content-Type": "application/json",
            signature.HEADER: signature.sign(self._secrets, body, time.time()),
        }
        if key:
            headers[KEY_HEADER] = key
        return HookRequest(parts, headers, body)

    def send(self, request: HookRequest, *, deadline_s: float, max_bytes: int) -> HookAnswer:
        """Send a request and return the whole answer.

        `deadline_s`: on the clock of `time.monotonic`. Raises: HookError.
        """
        progress = _Progress()
        outcome: Outcome | None = None
        try:
            answer = self._within(request, progress, deadline_s, max_bytes)
            outcome = _outcome(answer, max_bytes)
            return answer
        except HookError as error:
            outcome = error.kind
            raise
        finally:
            self._settle(progress, outcome)

    def _within(self, request: HookRequest, progress: _Progress, deadline_s: float, max_bytes: int) -> HookAnswer:
        left_s = deadline_s - progress.began_s
        if left_s <= 0:
            raise HookError("timeout", "no time was left to send it", sent=False)
        try:
            with within(left_s):
                return self._exchange(request, progress, deadline_s, max_bytes)
        except OutOfTimeError:
            raise HookError("timeout", f"no whole answer within {left_s:.3g} s", sent=progress.sent) from None
        except AddressRefusedError as error:
            raise HookError("refused", str(error), sent=False) from None
        except QueueFullError as error:
            raise HookError("busy", str(error), sent=False) from None
        except (LookupFailedError, UnconnectedError) as error:
            raise HookError("unreachable", str(error), sent=False) from None
        except BrokenError as error:
            raise HookError("lost" if progress.sent else "unreachable", str(error), sent=progress.sent) from error

    def _exchange(self, request: HookRequest, progress: _Progress, deadline_s: float, max_bytes: int) -> HookAnswer:
        url = request.url
        place = (url.host, url.port)
        circuit = self._circuits.setdefault(place, Circuit())
        if circuit.is_open(time.monotonic()):
            raise _open(url)
        with self._places.hold(place):
            if not circuit.may_send(time.monotonic()):  # it opened during the wait for a place
                raise _open(url)
            progress.circuit = circuit
            addresses = self._resolver.resolve(url.host, url.port)
            permitted = check(url.host, addresses, self._networks, secure=url.scheme == "https")
            sock = connect(url, permitted, self._tls if url.scheme == "https" else None, deadline_s=deadline_s)
            read_bytes = max(max_bytes, DETAIL_BYTES)
            wire = progress.wire = Wire(sock, HEAD_BYTES + CHUNK_COST * (read_bytes + 1))
            try:
                status, headers, body = wire.exchange(url, request.headers, request.body, read_bytes)
            finally:
                wire.close()
            return HookAnswer(status, body, headers.get("Retry-After", ""))

    def _settle(self, progress: _Progress, outcome: Outcome | None) -> None:
        """Count a request for its circuit and for the metrics. `outcome` None: its greenlet was killed."""
        now_s = time.monotonic()
        if (circuit := progress.circuit) is not None:
            if outcome in _COUNTED or outcome == "server_error":
                circuit.on_failure(now_s)
            elif outcome is None or outcome == "refused":
                circuit.on_nothing(now_s)
            else:
                circuit.on_answer()
        if outcome is not None:
            self._observe(outcome, now_s - progress.began_s)


def client_of(config: Config, kind: HookKind, page: Page | None = None) -> HookClient:
    """Return a client for one kind of requests. `page`: the metrics page that counts them."""
    secrets = (config.secrets.hook_secret, config.secrets.hook_secret_old)
    networks = parse_networks(config.hooks.allow_networks)
    if page is None:
        return HookClient(secrets, networks)
    counters = {outcome: page.counter(declare.HOOK_REQUESTS, kind=kind, outcome=outcome) for outcome in get_args(Outcome)}
    seconds = page.histogram(declare.HOOK_SECONDS, kind=kind)

    def observe(outcome: Outcome, duration_s: float) -> None:
        counters[outcome].add()
        seconds.observe(duration_s)

    return HookClient(secrets, networks, observe=observe)


def _open(url: HookUrl) -> HookError:
    return HookError("busy", f"requests to {url.host}:{url.port} are held back after failures", sent=False)


def _outcome(answer: HookAnswer, max_bytes: int) -> Outcome:
    if 200 <= answer.status < 300:
        return "too_large" if len(answer.body) > max_bytes else "ok"
    if 300 <= answer.status < 400:
        return "redirect"
    return "client_error" if 400 <= answer.status < 500 else "server_error"
