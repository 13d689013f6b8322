"""Jobs of kind `route`: the question who answers a call, asked once for each call.

A worker asks by the bus while Twilio waits for its webhook. The question becomes a job under the call's name, so that a webhook
that comes again, at whichever worker, gets the first answer. A question that control's end interrupted is repeated: it changes
nothing. Later, whichever worker has the call's stream asks for the variables: from the job, else from the call's events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, Protocol

from gevent.event import AsyncResult

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.config import Config
from gw.control.hooks.routes import Found
from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Ended, Job
from gw.control.jobs.service import Disk
from gw.errors import GatewayError, ProtocolError
from gw.protocol.hooks.route_call import Decision, call_sid_of, decode_decision, encode_decision, request_body
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

KIND: Final = "route"
#: Subjects of a worker's questions: the decision, at the webhook; its variables, at the stream's start.
VARIABLES: Final = "variables"
SUBJECTS: Final = frozenset({"route", VARIABLES})

#: Questions under way at a time, most of which wait for one of the host's connections: they share the commits of their claims.
RUNNERS: Final = 64
#: Waiting questions: more would not be answered in time.
CAPACITY: Final = 256
#: Longest attempt: the greatest `timeout_s`, and some time for the client to end it.
LIMIT_S: Final = 12.0
#: Answers to workers that wait at a time, below the places of the bus for all questions.
MAX_WAITING: Final = 256
#: From a job's deadline to the end of the wait for it.
MARGIN_S: Final = 0.2


class Asks(Protocol):
    """Asks the endpoint: `gw.control.hooks.routes.Routes`."""

    @property
    def timeout_s(self) -> float: ...

    def ask(self, call_sid: str, body: bytes, *, deadline_s: float) -> Found: ...


class RouteHandler:
    """Runs the questions."""

    kind: Final = KIND
    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(self, routes: Asks) -> None:
        self._routes = routes

    @property
    def timeout_s(self) -> float:
        """Time limit of a question."""
        return self._routes.timeout_s

    def repeats(self, job: Job) -> float | None:
        return self._routes.timeout_s  # the endpoint is only asked

    def run(self, job: Job, attempt: int) -> Ended:
        body = job.body.encode()
        try:
            call_sid = call_sid_of(body)
        except ProtocolError as error:
            return Ended("failed", "bad_answer", str(error))
        found = self._routes.ask(call_sid, body, deadline_s=time.monotonic() + job.deadline_at - time.time())
        if found.decision is None:
            return Ended("failed", found.failure or "unavailable", "")
        return Ended("done", "ok", encode_decision(found.decision))


class Service(Protocol):
    """The service of all jobs: `gw.control.jobs.service.Jobs`."""

    def on_accepted(self, jobs: Sequence[Job]) -> None: ...

    def results(self, question: bus.JobsOpen) -> list[bus.JobSettled]: ...


class Lookups:
    """Answers workers that ask about the route of a call."""

    def __init__(
        self,
        handler: RouteHandler | None,
        jobs: Service,
        disk: Disk,
        page: Page,
        *,
        variables: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`handler` None: no endpoint is configured. `variables` reads those of a call's events, and raises GatewayError."""
        self._handler = handler
        self._jobs = jobs
        self._disk = disk
        self._variables = variables
        self._waiting: dict[str, list[AsyncResult[bus.JobSettled]]] = {}
        self._count = 0
        outcomes = declare.ROUTE_LOOKUPS.labels["outcome"]
        self._outcomes = {outcome: page.counter(declare.ROUTE_LOOKUPS, outcome=outcome) for outcome in outcomes}

    def on_settled(self, settled: bus.JobSettled) -> bool:
        """Pass a result to the questions that wait for it. Returns False for a job of another kind."""
        if not settled.id.startswith(f"{KIND}/"):
            return False
        self._tally(settled.outcome)
        for waiting in self._waiting.get(settled.id, ()):
            waiting.set(settled)
        return True

    def answer(self, ask: bus.Ask) -> bus.Answer:
        """Answer a worker's question. Bounded. Without a route, `reason` has the cause."""
        try:
            if ask.about == VARIABLES:
                return bus.Answer(ask.n, route=self._known(ask))
            outcome, output = self._ask(ask)
            decision = decode_decision(output) if outcome == "ok" else None
        except GatewayError as error:
            log.warning("a worker's question about a route is not answered: %s", error, extra={"call_sid": ask.call_sid})
            return bus.Answer(ask.n, reason="unavailable")
        return bus.Answer(ask.n, route=decision, reason=outcome)

    def _ask(self, ask: bus.Ask) -> tuple[str, str]:
        """Make the job, unless it is there, and wait for its end. Returns outcome and result. Raises GatewayError."""
        if self._handler is None:
            return "unavailable", ""
        if self._count >= MAX_WAITING:
            self._tally("busy")
            return "busy", ""
        job_id, now = _id(ask), time.time()
        deadline_at = now + self._handler.timeout_s
        body = request_body(ask.call_sid, ask.fields).decode()
        job = lifecycle.want(job_id, KIND, ask.call_sid, body, deadline_at=deadline_at, now=now)
        with self._wait(job_id) as result:
            wanted = [table.Wanted(job, self._handler.capacity)]
            (row,) = self._disk.transact(partial(table.insert, wanted=wanted, now=now))
            if not row.is_open:
                if row.at == now:  # refused as it came
                    self._tally(row.outcome)
                return row.outcome, row.result
            if row.at == now:
                self._jobs.on_accepted([row])
            for settled in self._jobs.results(bus.JobsOpen(ask.call_sid, [job_id])):  # an end that is not on disk yet
                return settled.outcome, settled.output
            with suppress(OutOfTimeError), within(max(0.0, row.deadline_at - time.time()) + MARGIN_S):
                result.wait()
            came = result.value
            return ("timeout", "") if came is None else (came.outcome, came.output)

    def _tally(self, outcome: str) -> None:
        self._outcomes[outcome if outcome in self._outcomes else "unavailable"].add()

    @contextmanager
    def _wait(self, job_id: str) -> Iterator[AsyncResult[bus.JobSettled]]:
        result: AsyncResult[bus.JobSettled] = AsyncResult()
        waiting = self._waiting.setdefault(job_id, [])
        waiting.append(result)
        self._count += 1
        try:
            yield result
        finally:
            self._count -= 1
            waiting.remove(result)
            if not waiting:
                self._waiting.pop(job_id, None)

    def _known(self, ask: bus.Ask) -> Decision | None:
        """Return the known facts of a call's route without asking the endpoint. Raises GatewayError."""
        for settled in self._jobs.results(bus.JobsOpen(ask.call_sid, [_id(ask)])):
            if settled.outcome == "ok":
                return decode_decision(settled.output)
        return Decision(variables=dict(self._variables(ask.call_sid)))


def _id(ask: bus.Ask) -> str:
    return f"{KIND}/{ask.account_sid}/{ask.call_sid}"


def route_handler(config: Config, page: Page) -> RouteHandler | None:
    """Return the handler of questions; None without an endpoint."""
    if not config.route.url:
        return None
    from gw.control.hooks.client import client_of
    from gw.control.hooks.routes import Routes

    return RouteHandler(Routes(config, client_of(config, "route", page)))
