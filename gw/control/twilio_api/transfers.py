"""Transfers a caller to another number, by an update of the live call at Twilio.

The worker waits a few seconds for Twilio to end its stream. If the update is refused, or fails for that long, the worker closes
the stream, and the answer to Twilio's `action` webhook transfers the call. So a request is retried only within that time, and
only if Twilio cannot have carried it out: a call that follows the same instructions twice leaves the ringing telephone and dials
it anew. After an unclear answer the end of the stream decides. If Twilio ends it, the call follows the instructions, and no
`action` is due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import gevent
import gevent.pool

from gw import bus
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.answers import UNCLEAR, UNPROCESSED, RestError
from gw.control.twilio_api.rest import TwilioRest
from gw.protocol import twiml

log = logging.getLogger(__name__)

#: Below the time the worker waits (`gw.media.call_ending`).
TRANSFER_S: Final = 5.0
RETRY_S: Final = 0.5
#: Transfers under way; the rest is left to the webhook's answer.
MAX_TRANSFERS: Final = 64


class Transfers:
    """Subscriber of the bus. Without the account's credentials a transfer is left to the webhook."""

    def __init__(self, accounts: Accounts, *, done: Callable[[str], None], refused: Callable[[str], object]) -> None:
        """`done` receives each transferred call's SID; `refused` that of each call that the worker need not keep waiting."""
        self._accounts = accounts
        self._done = done
        self._refused = refused
        self._pool = gevent.pool.Pool(MAX_TRANSFERS)

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        if not isinstance(event, bus.CallEvent) or event.kind != "transfer_wanted":
            return
        account = self._accounts.of(str(event.data.get("account") or ""))
        if account is None or self._pool.full():
            why = "its account is not configured here" if account is None else "too many are under way"
            log.warning("a transfer is left to the webhook: %s", why, extra={"call_sid": event.call_sid})
            self._refused(event.call_sid)
            return
        self._pool.spawn(self._transfer, account.rest, event.call_sid, str(event.data.get("to") or ""))

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop every transfer under way."""
        self._pool.kill(timeout=timeout_s)

    def _transfer(self, rest: TwilioRest, call_sid: str, to: str) -> None:
        until_s = time.monotonic() + TRANSFER_S
        while True:
            try:
                rest.redirect_call(call_sid, twiml.dial(to), bound_s=max(0.1, until_s - time.monotonic()))
            except RestError as error:
                if error.kind in UNPROCESSED and time.monotonic() + RETRY_S < until_s:
                    gevent.sleep(RETRY_S)
                    continue
                log.warning("a caller could not be transferred by REST: %s", error, extra={"call_sid": call_sid})
                if error.kind not in UNCLEAR:
                    self._refused(call_sid)
                return
            except Exception:  # this greenlet's top: the call is left to the webhook
                log.exception("a caller could not be transferred by REST", extra={"call_sid": call_sid})
                return
            self._done(call_sid)
            log.info("the caller is transferred", extra={"call_sid": call_sid})
            return
