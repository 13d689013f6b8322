"""Spares a Twilio that is down: after failures in a row nobody asks for a while, then one request tries whether it is back.

Pure but for being told the time. What is spared is not lost: whoever may not ask now waits and asks again. Only what says that
Twilio cannot work counts as a failure (5xx, no answer, no connection); a refusal is an answer.

    closed     everybody asks                OPEN_AFTER failures in a row: open
    open       nobody asks                   after the pause: half-open
    half-open  one request is under way      answered: closed | failed, or not told in time: open, for twice as long
"""

from __future__ import annotations

from typing import Final, Literal

from gw.control.twilio_api.answers import Kind

#: Failures in a row, of any requests, that are no accident any more.
OPEN_AFTER: Final = 5
#: The first pause; each further one doubles up to the last, so that an outage costs a request every so often.
PAUSE_FIRST_S: Final = 1.0
PAUSE_LAST_S: Final = 15.0
#: What counts as a failure.
DOWN: Final[frozenset[Kind]] = frozenset({"server", "timeout", "unreachable"})

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """One door's. `probe_s`: a probe nobody told the outcome of in this time is forgotten."""

    def __init__(self, probe_s: float) -> None:
        self._probe_s = probe_s
        self._failures = 0
        self._pause_s = PAUSE_FIRST_S
        self._until_s = 0.0  # open: when a probe may go; half-open: when it is forgotten
        self.state: State = "closed"
        self.opened = 0  # how often it opened, since the start
        self.last_problem = ""  # what the last failure said; empty while it is closed

    @property
    def is_open(self) -> bool:
        """Whether requests are held back, but for a probe now and then."""
        return self.state != "closed"

    def may_ask(self, now_s: float) -> bool:
        """Whether a request may be sent now. In the open state a yes is for this one request, the probe."""
        if self.state == "closed":
            return True
        if now_s < self._until_s:
            return False
        self.state = "half-open"
        self._until_s = now_s + self._probe_s
        return True

    def on_answer(self) -> None:
        """Twilio answered, whatever it said."""
        self.state = "closed"
        self._failures = 0
        self._pause_s = PAUSE_FIRST_S
        self.last_problem = ""

    def on_error(self, kind: Kind, text: str, now_s: float) -> None:
        """A request ended without the thing done; of this `kind`."""
        if kind not in DOWN:
            self.on_answer()
            return
        self._failures += 1
        if self.state == "closed" and self._failures < OPEN_AFTER:
            return
        if self.state == "closed":
            self.opened += 1
        if self.state != "open":  # an answer to an older request says nothing new
            self.state = "open"
            self._until_s = now_s + self._pause_s
            self._pause_s = min(PAUSE_LAST_S, self._pause_s * 2)
        self.last_problem = text
