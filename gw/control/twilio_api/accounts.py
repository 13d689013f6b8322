"""The configured Twilio accounts: for each a REST client, and the limits on its requests.

Each account has its own circuit breaker, concurrency and Retry-After, so that a fault of one delays no other's calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from gevent.lock import BoundedSemaphore

from gw import config
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest

T = TypeVar("T")

#: Concurrent requests for recordings; more would be refused with 20429.
REST_CONCURRENCY: Final = 16


class Account:
    """One account. `name` is empty for the main one."""

    def __init__(self, whole: config.Config, one: config.Account) -> None:
        self.name = one.name
        self.sid = one.sid
        self.rest = TwilioRest(whole, one)
        self.breaker = CircuitBreaker(2 * self.rest.bound_s)
        self.slots = BoundedSemaphore(REST_CONCURRENCY)
        self.hold_until_s = 0.0  # Twilio's Retry-After, monotonic

    @property
    def problem(self) -> str:
        """Why requests are held back, as a sentence; empty unless the circuit is open."""
        if not self.breaker.is_open:
            return ""
        of_account = f" for the account {self.name}" if self.name else ""
        return f"recordings wait, Twilio's REST API is down{of_account}: {self.breaker.last_problem}"

    def ask(self, request: Callable[[TwilioRest], T]) -> T:
        """Send a request, and note its outcome for the next ones. Raises what `request` raises."""
        try:
            answer = request(self.rest)
        except RestError as error:
            now_s = time.monotonic()
            self.breaker.on_error(error.kind, str(error), now_s)
            self.hold_until_s = max(self.hold_until_s, now_s + error.retry_after_s)
            raise
        self.breaker.on_answer()
        return answer


class Accounts:
    """All accounts, the main one first. Empty without credentials."""

    def __init__(self, whole: config.Config) -> None:
        self._by_sid = {one.sid: Account(whole, one) for one in whole.accounts}
        self._main_sid = whole.twilio.account_sid

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_sid.values())

    def __len__(self) -> int:
        return len(self._by_sid)

    def of(self, account_sid: str) -> Account | None:
        """Return an account by its SID; None if it is not configured. An empty SID is the main account's."""
        return self._by_sid.get(account_sid or self._main_sid)

    def named(self, name: str) -> Account | None:
        """Return an account by its name."""
        return next((account for account in self if account.name == name), None)

    def of_call(self, call_sid: str, look_up: Callable[[str], str | None]) -> Account | None:
        """Return a call's account. `look_up` returns the account's SID; it is called only if there are several accounts."""
        if len(self) <= 1:
            return self.of("")
        account_sid = look_up(call_sid)
        return self.of(account_sid) if account_sid else None
