"""Circuit breaker for one endpoint: holds requests back while it fails. Pure; callers pass the time.

    state        requests                  next
    closed       all are sent              OPEN_AFTER failures in a row within WINDOW_S: open
    open         none is sent              after OPEN_S: half-open
    half-open    one, the probe            answered: closed | failed: open | no verdict: the next request is a probe

It differs from Twilio's (`gw.control.twilio_api.circuit_breaker`): failures count within a time, and every pause is the same.
A failure is a timeout, no connection, a lost one, or a status 5xx. Any other answer closes the circuit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

OPEN_AFTER: Final = 5
WINDOW_S: Final = 30.0
OPEN_S: Final = 15.0
#: A probe without a verdict for this long is given up: more than any request may take.
PROBE_S: Final = 90.0


class Circuit:
    """The state of one circuit."""

    __slots__ = ("_failures_s", "_probing", "_until_s")

    def __init__(self) -> None:
        self._failures_s: deque[float] = deque(maxlen=OPEN_AFTER)
        self._until_s = 0.0  # open: when a probe may be sent; half-open: when the probe is given up
        self._probing = False

    def is_open(self, now_s: float) -> bool:
        """Return whether a request would be held back now."""
        return now_s < self._until_s

    def may_send(self, now_s: float) -> bool:
        """Return whether a request may be sent now. True after a pause permits this one request, the probe."""
        if self.is_open(now_s):
            return False
        if self._until_s:
            self._probing = True
            self._until_s = now_s + PROBE_S
        return True

    def on_answer(self) -> None:
        """The endpoint answered, also if it refused."""
        self._failures_s.clear()
        self._until_s = 0.0
        self._probing = False

    def on_failure(self, now_s: float) -> None:
        """A request failed."""
        self._failures_s.append(now_s)
        full = len(self._failures_s) == OPEN_AFTER and now_s - self._failures_s[0] <= WINDOW_S
        if self._probing or (full and not self._until_s):
            self._until_s = now_s + OPEN_S
            self._probing = False

    def on_nothing(self, now_s: float) -> None:
        """A request ended without a verdict: refused before it was sent, or cancelled."""
        if self._probing:
            self._until_s = now_s
            self._probing = False
