"""Worker's end of the bus: sends numbered events, and keeps each until control acknowledges it.

`emit` never waits. One greenlet connects, sends Hello and every unacknowledged event, and reads commands. While control is away,
events are kept here, bounded in number and bytes: over a bound the oldest event of the least important kind is dropped and
counted.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec
from gevent import socket
from gevent.event import AsyncResult

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.media.hub.clock import turn_loop
from gw.media.transport.plain import Transport
from metrics.declare import BUS_DROPPED, BUS_UNACKED
from metrics.page import Page

log = logging.getLogger(__name__)

#: Events kept while control is away: an hour of 200 calls with a turn every 5 s is 144,000; a minute is 2,400.
MAX_UNACKED: Final = 50_000
#: Bytes of the kept events: a turn has some hundred, a webhook one or two thousand.
MAX_UNACKED_BYTES: Final = 64 << 20
#: Bytes that may wait for the kernel: several times the largest message.
MAX_WAITING_BYTES: Final = 8 << 20
#: Events resent in one slice of the hub: about 0.1 ms.
RESEND_BATCH: Final = 64
#: Pause between two attempts to reach control.
RETRY_S: Final = 0.2
#: Longest wait of a report for other events.
REPORT_S: Final = 0.02
#: The same after control refused this worker's version: one of the two must be replaced first.
REFUSED_RETRY_S: Final = 5.0
STATUS_S: Final = 1.0
#: Time control has to answer. "next" is asked by the action webhook: Twilio waits for 15 s, and the callers of a machine that
#: died ask at the same time, each for a few reads of the store. "conversation" is asked by a resumed call, whose caller hears
#: silence. "digits" is asked again.
ASK_S: Final = {"next": 6.0, "conversation": 1.5, "left": 4.0, "whisper": 4.0, "digits": 1.0}
#: Open questions. With more, control does not keep up.
MAX_ASKS: Final = 1000
#: Event kinds in the sequence in which they are dropped when control is away for too long: statistics before jobs, whose
#: deadlines have passed by then, jobs before turns, turns before the start and end that a call's row needs, and last the request
#: for a recording, which cannot be made up for.
_RANKS: Final[tuple[tuple[type, ...], ...]] = (
    (bus.CallEvent,),
    (bus.Webhook,),
    (bus.FirstAudio,),
    (bus.JobWanted,),
    (bus.Turn, bus.Usage),
    (bus.CallStarted, bus.CallEnded),
    (bus.StartRecording,),
)
#: Events on which nothing waits, but for these kinds of a CallEvent.
_REPORTS: Final = (bus.CallEvent, bus.Turn, bus.Usage)
_AWAITED: Final = frozenset({"transfer_wanted", "transfer_accepted", "transfer_ended"})
#: Commands that are not about the bus itself.
_FOR_WORKER: Final = bus.HangUp | bus.Drain | bus.Budget | bus.JobSettled | bus.AnsweredBy | bus.ExpectStop
_RANK_OF: Final = {kind: rank for rank, kinds in enumerate(_RANKS) for kind in kinds}


class BusClient:
    """The worker's outbox and its connection."""

    def __init__(
        self,
        path: Path,
        index: int,
        page: Page,
        *,
        calls: Callable[[], dict[str, tuple[float, str]]],
        status: Callable[[int], bus.WorkerStatus],
        on_command: Callable[[bus.Command], None],
        open_jobs: Callable[[], Mapping[str, Sequence[str]]] = dict,
    ) -> None:
        """`calls`: start and account of each open call's stream, by call SID; `status`: this worker's state, given its backlog;
        `open_jobs`: ids of the jobs that each call waits for, by call SID."""
        self._path = path
        self._index = index
        self.instance = uuid.uuid4().hex
        self._calls = calls
        self._status = status
        self._on_command = on_command
        self._open_jobs = open_jobs
        self._n = 0
        self._acked = 0  # every event up to this number is acknowledged
        self._unacked: dict[int, tuple[type, bytes]] = {}  # by number: kind and packed message
        self._unacked_bytes = 0
        self._ranked: tuple[deque[int], ...] = tuple(deque() for _ in _RANKS)  # the same numbers by rank, for dropping
        self._retry_s = RETRY_S
        self._transport: Transport | None = None
        self._written: list[bytes] = []  # in the sequence of their numbers
        self._is_due = False  # they are sent after this turn of the hub
        self._report_timer: Any = None  # or by this
        self._asked = 0
        self._open: dict[int, AsyncResult[bus.Answer | None]] = {}  # open questions
        self._stopped = False
        self._unacked_cell = page.gauge(BUS_UNACKED)
        self._dropped_cells = {kind: page.counter(BUS_DROPPED, kind=kind) for kind in BUS_DROPPED.labels["kind"]}

    # -- out ----------------------------------------------------------------------------------------------------------

    def emit(self, event: bus.Event) -> None:
        """Send an event, now or when control is back. Never waits."""
        try:
            data = bus.pack(bus.Numbered(self._n + 1, event))
        except bus.BusError as error:  # a text that was not bounded at its source
            self._dropped_cells[_kind(type(event))].add()
            log.error("an event is dropped, it cannot be packed: %s", error, extra={"code": error.code})
            return
        self._n += 1
        self._unacked[self._n] = (type(event), data)
        self._unacked_bytes += len(data)
        self._ranked[_RANK_OF[type(event)]].append(self._n)
        while len(self._unacked) > MAX_UNACKED or self._unacked_bytes > MAX_UNACKED_BYTES:
            self._drop_one()
        self._unacked_cell.set(len(self._unacked))
        is_report = isinstance(event, _REPORTS) and not (isinstance(event, bus.CallEvent) and event.kind in _AWAITED)
        self._write(data, may_wait=is_report)

    def _write(self, data: bytes, *, may_wait: bool = False) -> None:
        """Send a message, and those before it, after this turn of the hub, or within REPORT_S. Never waits itself.

        Nothing is sent while control is not connected. Control commits together what it reads together: a tool call does not
        wait for the commit of the event before it, and reports cost few commits.
        """
        if self._transport is None:
            return
        self._written.append(data)
        loop = gevent.get_hub().loop
        if not may_wait and not self._is_due:
            self._is_due = True
            loop.run_callback(self._send_written)
        elif may_wait and len(self._written) == 1:
            self._report_timer = loop.timer(REPORT_S)
            self._report_timer.start(self._send_written)

    def _send_written(self) -> None:
        if self._report_timer is not None:
            self._report_timer.close()
        written, self._written, self._report_timer, self._is_due = self._written, [], None, False
        if self._transport is not None and written:  # otherwise the events are sent again
            self._transport.write(b"".join(written))

    def send_hold(self, hold: bus.HubHold) -> None:
        """Send a statistic if control is connected and reads; otherwise drop it. Never waits."""
        if self._transport is not None and not self._transport.waiting_bytes:
            self._write(bus.pack(hold))

    def cancel_job(self, job_id: str) -> None:
        """Give up a job, if control is connected; otherwise its result will be dropped. Never waits."""
        self._write(bus.pack(bus.JobCancelled(job_id)))

    def confirm(self, expected: bus.StopExpected) -> None:
        """Confirm an expected stop. Never waits: control is connected, it has just sent the command."""
        self._write(bus.pack(expected))

    def ask(self, call_sid: str, about: str, account_sid: str = "", *, key: str = "", outcome: str = "") -> bus.Answer | None:
        """Ask control, and wait at most ASK_S. None: no answer. Parameters as of `bus.Ask`."""
        return self.put(bus.Ask(0, call_sid, about, account_sid, key=key, outcome=outcome), ASK_S[about])

    def put(self, question: bus.Ask, limit_s: float) -> bus.Answer | None:
        """Put a question to control, and wait at most `limit_s`, or until the connection ends. None: no answer."""
        if self._transport is None or len(self._open) >= MAX_ASKS:
            return None
        self._asked += 1
        n = self._asked
        result: AsyncResult[bus.Answer | None] = AsyncResult()
        self._open[n] = result
        try:
            self._write(bus.pack(msgspec.structs.replace(question, n=n)))
            return result.get(timeout=limit_s)
        except gevent.Timeout:
            log.warning("control did not answer a question in time", extra={"call_sid": question.call_sid})
            return None
        except bus.BusError as error:  # a form that is longer than a message may be
            log.error("a question cannot be packed: %s", error, extra={"call_sid": question.call_sid, "code": error.code})
            return None
        finally:
            del self._open[n]

    def keep_digits(self, call_sid: str, ref: str, digits: str) -> bool:
        """Hand over sensitive digits, not kept on disk, and wait at most ASK_S. Returns whether control has them."""
        answer = self.put(bus.Ask(0, call_sid, "digits", fields={ref: digits}), ASK_S["digits"])
        return answer is not None and answer.step == bus.KEPT

    def _drop_one(self) -> None:
        """Drop the oldest event of the least important kind."""
        number = next(numbers for numbers in self._ranked if numbers).popleft()
        kind, data = self._unacked.pop(number)
        self._unacked_bytes -= len(data)
        self._dropped_cells[_kind(kind)].add()

    @property
    def unacked(self) -> int:
        """Number of events that control has not acknowledged."""
        return len(self._unacked)

    # -- the connection -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Connect and serve, again and again, until `stop`. The greenlet's body."""
        while not self._stopped:
            try:
                transport = self._connect()
                try:
                    self._serve(transport)
                finally:
                    self._transport = None
                    transport.shut()
            except OSError as error:
                log.debug("control is not reachable: %s", error)
            except bus.BusError:
                log.exception("control sent a message that is not of this bus version", extra={"code": "bus_error"})
            if not self._stopped:
                gevent.sleep(self._retry_s)

    def _connect(self) -> Transport:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(RETRY_S * 5)
        try:
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        return Transport(sock, MAX_WAITING_BYTES)

    def _serve(self, transport: Transport) -> None:
        calls = self._calls()
        starts, accounts = [at for at, _ in calls.values()], [account_sid for _, account_sid in calls.values()]
        hello = bus.Hello(self._index, self.instance, os.getpid(), list(calls), bus.VERSION, starts, accounts)
        transport.write(bus.pack(hello))
        self._resend(transport)
        self._ask_for_jobs(transport)  # behind the events: control has their jobs by then
        self._transport = transport
        reader = bus.Reader.of_commands()
        status_sender = gevent.spawn(self._send_status, transport)
        try:
            while not self._stopped and (data := transport.read()) != b"":
                for command in reader.feed(data or b""):
                    if isinstance(command, bus.Ack):
                        self._retry_s = RETRY_S
                        self._on_ack(command.n)
                    elif isinstance(command, bus.VersionRefused):
                        if self._retry_s != REFUSED_RETRY_S:
                            log.error("control refused this worker, which keeps its events: %s", command.why)
                        self._retry_s = REFUSED_RETRY_S
                        return
                    elif isinstance(command, bus.Answer):
                        if (result := self._open.get(command.n)) is not None:
                            result.set(command)
                    elif isinstance(command, _FOR_WORKER):
                        self._on_command(command)
        finally:
            status_sender.kill(block=False)
            for waiting in self._open.values():
                waiting.set(None)  # the answer would come over this connection

    def _resend(self, transport: Transport) -> None:
        """Send all unacknowledged events in batches, also those emitted meanwhile. No switch follows the last one, so none is
        missed before `_transport` is set."""
        number = self._acked
        while number < self._n and not transport.failure and not self._stopped:
            number += 1
            kept = self._unacked.get(number)
            if kept is not None:
                transport.write(kept[1])
            if number % RESEND_BATCH == 0:
                turn_loop()
            while transport.waiting_bytes > MAX_WAITING_BYTES // 2 and not transport.failure and not self._stopped:
                gevent.sleep(0.01)

    def _ask_for_jobs(self, transport: Transport) -> None:
        """Ask for the jobs whose results may have been lost with the former connection."""
        for call_sid, ids in self._open_jobs().items():
            if ids:
                transport.write(bus.pack(bus.JobsOpen(call_sid, list(ids))))

    def _send_status(self, transport: Transport) -> None:
        while not transport.failure:
            transport.write(bus.pack(self._status(len(self._unacked))))
            gevent.sleep(STATUS_S)

    def _on_ack(self, n: int) -> None:
        last = min(n, self._n)
        for numbers in self._ranked:
            while numbers and numbers[0] <= last:
                _, data = self._unacked.pop(numbers.popleft())
                self._unacked_bytes -= len(data)
        self._acked = max(self._acked, last)
        self._unacked_cell.set(len(self._unacked))

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event is acknowledged. False when `timeout_s` passed first."""
        with suppress(OutOfTimeError), within(timeout_s):
            while self._unacked:
                gevent.sleep(0.01)
        return not self._unacked

    def stop(self) -> None:
        """Let `run` end."""
        self._stopped = True
        if self._transport is not None:
            self._transport.wake()


def _kind(event: type) -> str:
    """An event's class as its label value: `CallStarted` is `call_started`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in event.__name__).lstrip("_")
