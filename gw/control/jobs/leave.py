"""Jobs of kind `leave`: Twilio's new instructions for a call that leaves its stream (`gw.call.leave`).

Twilio would follow the same instructions twice, and dial twice. So a request whose outcome is unclear is not repeated, and a job
that an earlier process left claimed is repeated only if its call still has the stream of the wish: the request had no effect
then. A stream that began later is the call's return. The stream's end is the answer to the worker; the result of the job keeps
the wish for Twilio's webhooks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode

import gevent
import msgspec

from gw.call.leave import KIND, SEND_DIGITS, Leave, decode_leave, encode_leave, without_digits
from gw.config import Server
from gw.control.jobs.lifecycle import Ended, Job
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.answers import UNCLEAR, UNPROCESSED, RestError
from gw.errors import ProtocolError
from gw.protocol import twiml
from gw.protocol.hooks.tool_call import ErrorWord, failed

log = logging.getLogger(__name__)

#: Requests under way at a time, and waiting ones.
RUNNERS: Final = 64
CAPACITY: Final = 1000
#: Longest attempt, with the wait for the workers.
LIMIT_S: Final = 12.0
#: Time for a job that is repeated after a restart, and the part of it in which the call's worker may connect.
AGAIN_S: Final = 8.0
CONNECT_S: Final = 2.5
LOOK_S: Final = 0.05
#: Pause before a request that Twilio did not process is sent again.
RETRY_S: Final = 0.3
_OVER: Final = ("gone", "not_in_progress")


class LeaveHandler:
    """Sends the requests."""

    kind: Final = KIND
    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(
        self,
        server: Server,
        accounts: Accounts,
        stream_began_at: Callable[[str], float | None],
        expect_stop: Callable[[str, bool], Mapping[str, str]] = lambda call_sid, on: {},
    ) -> None:
        """`stream_began_at`: of the call's stream at a worker, epoch seconds; or None. `expect_stop`: see `BusServer`."""
        self._server = server
        self._accounts = accounts
        self._stream_began_at = stream_began_at
        self._expect_stop = expect_stop

    def repeats(self, job: Job) -> float | None:
        return AGAIN_S

    def run(self, job: Job, attempt: int) -> Ended:
        try:
            leave = decode_leave(job.body)
        except ProtocolError as error:
            return _failed("invalid_arguments", f"The request is invalid: {error}.")
        kept = encode_leave(without_digits(leave))
        if attempt > 1 and not self._still_has_stream(job):
            return Ended("done", "ok", kept)
        account = self._accounts.of(leave.account_sid)
        if account is None:
            return _failed("refused", "The gateway has no Twilio credentials for this call.")
        is_operators = not leave.call_id
        if is_operators:
            carried = dict(self._expect_stop(job.call_sid, True))
            leave = msgspec.structs.replace(leave, route=carried.pop("route", ""), carried=carried)
        document = self._document(job.call_sid, leave)
        while True:
            left_s = max(RETRY_S, job.deadline_at - time.time())
            try:
                account.rest.redirect_call(job.call_sid, document, bound_s=left_s)
            except RestError as error:
                if error.kind in UNPROCESSED and time.time() + RETRY_S < job.deadline_at:
                    gevent.sleep(RETRY_S)
                    continue
                log.warning("a call does not leave its stream: %s", error, extra={"call_sid": job.call_sid})
                if error.kind in UNCLEAR:
                    return Ended("unclear", "unknown_outcome", kept)
                if is_operators:
                    self._expect_stop(job.call_sid, False)
                if error.kind in _OVER:
                    return _failed("refused", "The call is over.")
                return _failed("unavailable", "The telephone system did not take the request.")
            log.info("a call leaves its stream: %s", leave.tool, extra={"call_sid": job.call_sid})
            return Ended("done", "ok", kept)

    def _still_has_stream(self, job: Job) -> bool:
        """Return whether a worker has the stream that the job is to end, once the workers had time to connect."""
        until_s = time.monotonic() + CONNECT_S
        while (began_at := self._stream_began_at(job.call_sid)) is None:
            if time.monotonic() >= until_s:
                return False
            gevent.sleep(LOOK_S)
        return began_at <= job.at

    def _document(self, call_sid: str, leave: Leave) -> str:
        """Return the TwiML for the call."""
        base, back = self._server.public_base, self._server.way_back
        route = f"&route={quote(leave.route, safe='')}" if leave.route else ""
        carried = f"&{urlencode(leave.carried)}" if leave.carried else ""
        action_url = f"{base}/twilio/action{back}?left={leave.key}{route}{carried}"
        if leave.tool == SEND_DIGITS:
            return twiml.play_digits(f"ww{leave.digits}", action_url)
        whisper_url = f"{base}/twilio/whisper{back}?call={call_sid}&key={leave.key}" if leave.whisper else ""
        return twiml.transfer(leave.to, ring_s=leave.ring_s, action_url=action_url, whisper_url=whisper_url)


def wish_of(jobs: Sequence[Job], key: str) -> Leave | None:
    """Return the wish with this key among the jobs of a call; None without one."""
    for job in jobs:
        try:
            leave = decode_leave(job.body or job.result)
        except ProtocolError:
            continue
        if leave.key == key:
            return leave
    return None


def _failed(word: ErrorWord, detail: str) -> Ended:
    return Ended("failed", word, failed(word, detail).output)
