"""The question who answers a call: asks the user's endpoint within its time limit, and checks its answer.

The endpoint is only asked and changes nothing, so it is asked once more, within the same time, after a failed connection or a
status 5xx. Never raises for anything that an endpoint does; the log has the cause, and neither numbers nor variables.
"""

from __future__ import annotations

import logging
import time
from typing import Final, Literal, NamedTuple

import gevent

from gw.config import Config
from gw.control.hooks.client import HookClient, HookError
from gw.errors import ProtocolError
from gw.protocol.hooks.route_call import MAX_ANSWER_BYTES, Decision, read_answer

log = logging.getLogger(__name__)

#: Pause before the second attempt: an endpoint that is replaced refuses connections for a moment.
PAUSE_S: Final = 0.1
#: A second attempt needs at least this much time.
LEAST_S: Final = 0.1

#: Why there is no decision: a label of gw_route_lookups_total.
LookupFailure = Literal["refused", "busy", "unavailable", "timeout", "bad_answer"]


class Found(NamedTuple):
    """A decision, or the failure and its cause."""

    decision: Decision | None
    failure: LookupFailure | None = None
    why: str = ""


class Routes:
    """The endpoint that decides who answers. `ask` blocks its greenlet; killing that closes the connection."""

    def __init__(self, config: Config, client: HookClient) -> None:
        self._lookup = config.route
        self._client = client
        if self._lookup.url.startswith("https:"):
            client.open_tls()

    @property
    def timeout_s(self) -> float:
        """Time limit of a question."""
        return self._lookup.timeout_s

    def ask(self, call_sid: str, body: bytes, *, deadline_s: float) -> Found:
        """Ask who answers a call. `deadline_s`: on the clock of `time.monotonic`; `timeout_s` may end it sooner."""
        deadline_s = min(deadline_s, time.monotonic() + self._lookup.timeout_s)
        found, again = self._attempt(call_sid, body, deadline_s)
        if again and deadline_s - time.monotonic() > PAUSE_S + LEAST_S:
            gevent.sleep(PAUSE_S)
            found, _ = self._attempt(call_sid, body, deadline_s)
        if found.failure is not None:
            log.error(
                "the route endpoint gave no valid answer (%s): %s; route.on_failure = %s applies",
                found.failure,
                found.why,
                self._lookup.on_failure,
                extra={"call_sid": call_sid, "reason": "route_failed"},
            )
        return found

    def _attempt(self, call_sid: str, body: bytes, deadline_s: float) -> tuple[Found, bool]:
        """Send one request. Returns the decision, and whether another attempt may succeed."""
        request = self._client.prepare(self._lookup.url, body, call_sid)
        try:
            received = self._client.send(request, deadline_s=deadline_s, max_bytes=MAX_ANSWER_BYTES)
        except HookError as error:
            failure: LookupFailure = "unavailable" if error.kind in ("unreachable", "lost") else error.kind  # type: ignore[assignment]
            return Found(None, failure, str(error)), failure == "unavailable"
        try:
            decision = read_answer(received.status, received.body)
        except ProtocolError as error:
            is_down = received.status >= 500
            return Found(None, "unavailable" if is_down else "bad_answer", error.detail), is_down
        return Found(decision), False
