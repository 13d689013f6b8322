"""Circuit breaker for Twilio's REST API: holds requests back while Twilio is down.

Pure; callers pass the time. A request that may not be sent is not lost: the caller waits and asks again. A failure is an error
that every request would meet (5xx, no answer, no connection, refused credentials); any other refusal is an answer.

    state        requests                       next
    closed       all are sent                   OPEN_AFTER failures in a row: open
    open         none is sent                   after the pause: half-open
    half-open    one, the probe, is under way   answered: closed | failed, or no result in time: open, for twice as long
"""

from __future__ import annotations

from typing import Final, Literal

from gw.control.twilio_api.answers import Kind

#: Failures in a row, of any requests, that open the circuit.
OPEN_AFTER: Final = 5
#: Pauses between probes: the first doubles up to the last, so that an outage costs few requests.
PAUSE_FIRST_S: Final = 1.0
PAUSE_LAST_S: Final = 15.0
#: Kinds of errors that count as a failure.
DOWN: Final[frozenset[Kind]] = frozenset({"server", "timeout", "unreachable", "unauthorized"})


class CircuitBreaker:
    """The state of one circuit. `probe_s`: a probe without a result for this long is given up."""

    def __init__(self, probe_s: float) -> None:
        self._probe_s = probe_s
        self._failures = 0
        self._pause_s = PAUSE_FIRST_S
        self._until_s = 0.0  # open: when a probe may be sent; half-open: when the probe is given up
        self.state: Literal["closed", "open", "half-open"] = "closed"
        self.opened = 0  # openings since the start
        self.last_problem = ""  # text of the last failure; empty while closed

    @property
    def is_open(self) -> bool:
        """True while requests are held back, except for probes."""
        return self.state != "closed"

    def may_ask(self, now_s: float) -> bool:
        """Return whether a request may be sent now. While open, True permits this one request, the probe."""
        if self.state == "closed":
            return True
        if now_s < self._until_s:
            return False
        self.state = "half-open"
        self._until_s = now_s + self._probe_s
        return True

    def on_answer(self) -> None:
        """Twilio answered a request, also if it refused."""
        self.state = "closed"
        self._failures = 0
        self._pause_s = PAUSE_FIRST_S
        self.last_problem = ""

    def on_error(self, kind: Kind, text: str, now_s: float) -> None:
        """A request ended with an error of this kind."""
        if kind not in DOWN:
            self.on_answer()
            return
        self._failures += 1
        if self.state == "closed" and self._failures < OPEN_AFTER:
            return
        if self.state == "closed":
            self.opened += 1
        if self.state != "open":  # when open, this error belongs to an older request
            self.state = "open"
            self._until_s = now_s + self._pause_s
            self._pause_s = min(PAUSE_LAST_S, self._pause_s * 2)
        self.last_problem = text
