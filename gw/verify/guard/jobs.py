"""A model of one job: worker, bus, control, the spool's row and the endpoint, in every order and with every fault.

Decisions are the production code's (`job_parts`); this file decides only what may happen next. The endpoint of an idempotent tool
honours the key of a request; that of another tool does whatever it receives. A request on its way reaches the endpoint at any
later time, whatever has become of its sender.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from gw.control.jobs.lifecycle import Job
from gw.protocol.hooks.tool_call import ErrorWord, ToolAnswer, failed
from gw.verify.explorer import FREE, SURE, Step
from gw.verify.guard.job_parts import LATE, NOW, Done, JobParts, Memory
from metrics.page import Page

DONE_ONCE: Final = "no job is done twice"
CLAIMED: Final = "a request is sent only while its claim is on disk"
KEPT: Final = "an acknowledged job is on disk"
TOLD_TRULY: Final = "a result means that the job was done; a job that expired was not"
TOLD: Final = "a worker that waits for a job receives its result"
JOB_SETTLES: Final = "every job is settled"
CANCELLED: Final = "control sends no request of a job after its cancellation, and ends the request under way"
JOB_INVARIANTS: Final = (DONE_ONCE, CLAIMED, KEPT, TOLD_TRULY, TOLD, JOB_SETTLES, CANCELLED)

JOB_FAULTS: Final = frozenset(
    (
        *("control killed", "control replaced", "commit unclear", "link breaks", "worker killed", "stream moves"),
        *("cancelled", "wanted twice", "no connection", "connection lost", "no answer"),
    )
)


#: A cancellation among the messages to control.
_CANCEL: Final = -1


class JobScenario(NamedTuple):
    """One exploration. `budget`: faults in one run."""

    name: str
    faults: frozenset[str]
    budget: int
    idempotent: bool = False
    hosts: int = 1
    leaves: bool = False  # the job is a transfer, which ends the call's stream


class JobState(NamedTuple):
    """The whole model at one moment."""

    budget: int
    late: bool = False  # the deadline has passed
    worker: Literal["here", "dead", "elsewhere"] = "here"
    wanted: int = 0  # events that the worker has made for the job
    acked: int = 0
    told: str = ""  # the first outcome that reached the worker
    linked: bool = False
    up: tuple[int, ...] = ()  # on the way to control: the numbers of events; 0: the question for open jobs; -1: a cancellation
    down: tuple[str, ...] = ()  # on the way to the worker: outcomes; a number is an acknowledgement
    control: bool = True  # the process runs
    row: Job | None = None
    last: int = 0  # number of the newest event on disk
    batch: tuple[Job, ...] = ()  # committed, but not yet passed to the service
    ack: int = 0  # the acknowledgement that follows the batch
    memory: Memory = Memory()
    attempt: Job | None = None  # the attempt under way
    sent: bool = False  # its request was sent
    answered: bool = False  # its answer has arrived
    wire: tuple[tuple[str, int], ...] = ()  # requests on their way: key and attempt
    keys: tuple[str, ...] = ()  # that the endpoint has seen
    effects: int = 0
    unclaimed: bool = False  # a request was sent without a claim
    heard: bool = False  # this control process received the cancellation
    disobeyed: bool = False  # it sent a request afterwards, or let one continue


class JobModel:
    """Steps and invariants of one job."""

    def __init__(self, scenario: JobScenario, page: Page) -> None:
        self._scenario = scenario
        self.parts = JobParts(page, idempotent=scenario.idempotent, leaves=scenario.leaves)

    def first(self) -> JobState:
        return JobState(self._scenario.budget)

    def wrong(self, state: JobState) -> Iterable[str]:
        if state.effects > 1:
            yield DONE_ONCE
        if state.unclaimed:
            yield CLAIMED
        if state.disobeyed:
            yield CANCELLED
        row = state.row
        if state.acked and row is None:
            yield KEPT
        expired = row is not None and row.state == "expired" and not row.attempts
        if (state.told == "ok" and not state.effects) or (expired and state.effects):
            yield TOLD_TRULY

    def owing(self, state: JobState) -> Iterable[str]:
        if state.wanted and not state.told and state.worker != "dead":
            yield TOLD
        if state.row is not None and state.row.is_open:
            yield JOB_SETTLES

    def steps(self, state: JobState) -> Sequence[Step[JobState]]:
        steps: list[Step[JobState]] = []
        self._worker(state, steps)
        if state.control:
            self._bus(state, steps)
            self._turns(state, steps)
            self._attempt(state, steps)
        else:
            back = state._replace(control=True, memory=Memory())
            steps.append(Step("control is back", back, SURE))
        self._endpoint(state, steps)
        if not state.late:
            steps.append(Step("the deadline passes", state._replace(late=True), FREE))
        if state.budget:
            self._faults(state._replace(budget=state.budget - 1), steps)
        return steps

    # -- the worker ---------------------------------------------------------------------------------------------------

    def _worker(self, state: JobState, steps: list[Step[JobState]]) -> None:
        if state.worker == "dead":
            return
        if not state.wanted and state.worker == "here":
            steps.append(Step("worker: the AI calls a tool", _want(state), FREE))
        if not state.linked and state.control and state.worker == "here":
            again = tuple(range(state.acked + 1, state.wanted + 1))
            asks = (0,) if state.wanted and not state.told else ()
            linked = state._replace(linked=True, up=(*again, *asks))
            steps.append(Step("worker: connects", linked, SURE))
        if state.down:
            head, rest = state.down[0], state._replace(down=state.down[1:])
            if head.isdigit():
                steps.append(Step("worker: takes an acknowledgement", rest._replace(acked=max(state.acked, int(head))), SURE))
            else:
                steps.append(Step(f"worker: receives {head}", rest._replace(told=state.told or head), SURE))

    # -- the bus ------------------------------------------------------------------------------------------------------

    def _bus(self, state: JobState, steps: list[Step[JobState]]) -> None:
        if state.ack:
            acknowledged = self._say(state._replace(batch=(), ack=0), (str(state.ack),))
            passed = self._after(acknowledged, self.parts.pass_on(state.row, state.memory, state.batch))
            steps.append(Step("control: acknowledges the event and passes the job on", passed, SURE))
        elif state.up and state.up[0] == _CANCEL:
            steps.append(Step("control: takes the cancellation", self._after_cancel(state), SURE))
        elif state.up and state.up[0] == 0:
            asked = self._say(state._replace(up=state.up[1:]), self.parts.results(state.row, state.memory))
            steps.append(Step("control: answers the question for open jobs", asked, SURE))
        elif state.up:
            committed = self._committed(state)
            steps.append(Step("control: commits the event with its job", committed, SURE))
            if committed.memory.reserved is not None:
                unclaimed = self._committed(state, is_busy=True)
                steps.append(Step("control: commits the event with its job while no runner is free", unclaimed, SURE))

    def _committed(self, state: JobState, *, is_busy: bool = False) -> JobState:
        numbers = tuple(n for n in state.up if n > 0)
        fresh = self.parts.fresh(numbers, state.last)
        done, accepted = self.parts.accept(state.row, state.memory, len(fresh), _now(state), is_busy=is_busy)
        rest = tuple(n for n in state.up if n <= 0)
        last = max(state.last, *fresh, 0)
        return state._replace(up=rest, row=done.row, memory=done.memory, last=last, batch=accepted, ack=max(numbers))

    def _after_cancel(self, state: JobState) -> JobState:
        """The state after the service received the cancellation."""
        under_way = state.attempt is not None and state.sent
        done, killed = self.parts.cancel(state.row, state.memory, _now(state), is_sent=under_way)
        after = state._replace(up=state.up[1:], heard=True, disobeyed=state.disobeyed or (under_way and not killed))
        if killed:
            after = after._replace(attempt=None, sent=False, answered=False)
        return self._after(after, done)

    def _say(self, state: JobState, words: tuple[str, ...]) -> JobState:
        """Send to the worker, if it is connected here."""
        return state._replace(down=(*state.down, *words)) if state.linked else state

    # -- the service --------------------------------------------------------------------------------------------------

    def _turns(self, state: JobState, steps: list[Step[JobState]]) -> None:
        after = self._after(state, self.parts.turn(state.row, state.memory, _now(state), "known"))
        if after != state:
            steps.append(Step("control: takes a turn", after, SURE))

    def _after(self, state: JobState, done: Done) -> JobState:
        begun = {} if done.begun is None else {"attempt": done.begun, "sent": False, "answered": False}
        return self._say(state._replace(row=done.row, memory=done.memory, **begun), done.sent)  # type: ignore[arg-type]

    def _attempt(self, state: JobState, steps: list[Step[JobState]]) -> None:
        attempt = state.attempt
        if attempt is None:
            return
        if self._scenario.leaves and not state.sent and attempt.attempts > 1:
            if state.worker == "here" and not state.linked:
                return  # control waits for the worker
            if not self.parts.begins(state.row, state.memory, _now(state), self._stream_began_at(state)):
                steps.append(Step("control: the call has left its stream", self._ended(state, ToolAnswer("text", "ok")), SURE))
                return
        if not state.sent and state.memory.cancelled and not self.parts.begins(state.row, state.memory, _now(state)):
            steps.append(Step("control: drops the cancelled job", self._ended(state, ToolAnswer("text", "ok")), SURE))
        elif not state.sent:
            row = state.row
            claimed = row is not None and (row.state, row.attempts) == ("claimed", attempt.attempts)
            wire = tuple(sorted((*state.wire, (attempt.id, attempt.attempts))))
            sent = state._replace(sent=True, wire=wire, unclaimed=state.unclaimed or not claimed)
            sent = sent._replace(disobeyed=state.disobeyed or state.heard)
            steps.append(Step("control: sends the request", sent, SURE))
        elif state.answered:
            steps.append(Step("control: reads the answer", self._ended(state, ToolAnswer("text", "ok")), SURE))

    def _stream_began_at(self, state: JobState) -> float | None:
        """Return when the call's stream began. A transfer that took effect ended the first one; the call has returned."""
        if state.worker != "here":
            return None
        return LATE if self._scenario.leaves and state.effects else 0.0

    def _ended(self, state: JobState, answer: ToolAnswer) -> JobState:
        done = self.parts.end(state.row, state.memory, _now(state), answer, self._stream_began_at(state))
        return self._after(state._replace(attempt=None, sent=False, answered=False), done)

    # -- the endpoint -------------------------------------------------------------------------------------------------

    def _endpoint(self, state: JobState, steps: list[Step[JobState]]) -> None:
        for key, number in state.wire:
            known = self._scenario.idempotent and key in state.keys
            wire = tuple(one for one in state.wire if one != (key, number))
            waits = state.attempt is not None and state.sent and state.attempt.attempts == number
            does = state._replace(
                wire=wire,
                keys=tuple(sorted({*state.keys, key})),
                effects=state.effects + (not known),
                answered=state.answered or waits,
            )
            word = "answers a known key" if known else "does the job"
            steps.append(Step(f"endpoint: {word}, attempt {number}", does, SURE))

    # -- faults -------------------------------------------------------------------------------------------------------

    def _faults(self, state: JobState, steps: list[Step[JobState]]) -> None:
        """Add the faults; `state` has spent one."""

        def add(fault: str, label: str, after: JobState) -> None:
            if fault in self._scenario.faults:
                steps.append(Step(label, after, FREE))

        if state.control:
            gone = _unlinked(state)._replace(
                control=False, batch=(), ack=0, memory=Memory(), attempt=None, sent=False, answered=False, heard=False
            )
            stopped = self.parts.stop(state.row, state.memory, _now(state))
            ends = [gone]
            if self._scenario.leaves and state.wire:  # Twilio takes the request before the next control asks, or never
                ends = [gone._replace(wire=()), gone._replace(wire=(), effects=gone.effects + len(gone.wire))]
            for after in ends:
                add("control killed", "control is killed", after)
                add("control replaced", "control is replaced", after._replace(row=stopped.row))
            for commit in ("lost", "done"):
                done = self.parts.turn(state.row, state.memory, _now(state), commit)
                add("commit unclear", f"the outcome of a turn's commit is unknown ({commit})", self._after(state, done))
            if any(n > 0 for n in state.up) and not state.ack:
                committed = self._committed(state)
                for commit, after in (("lost", committed._replace(row=state.row, last=state.last)), ("done", committed)):
                    unclear = self._after(after, self.parts.doubt(after.row, after.memory, _now(state)))
                    unclear = _unlinked(unclear)._replace(batch=(), ack=0)
                    add("commit unclear", f"the outcome of the event's commit is unknown ({commit})", unclear)
        if state.linked:
            add("link breaks", "the worker's connection breaks", _unlinked(state))
        if state.worker == "here":
            add("worker killed", "the worker is killed", _unlinked(state)._replace(worker="dead"))
            if state.wanted:
                told = self.parts.results(None, Memory(recovered=True))
                moved = _unlinked(state)._replace(worker="elsewhere", down=told, acked=0)
                add("stream moves", "the call continues at another gateway, which is asked for the job", moved)
            if state.wanted and not state.told:
                up = (*state.up, _CANCEL) if state.linked else state.up  # not sent again: a late result is dropped
                add("cancelled", "worker: cancels the job", state._replace(told="cancelled", up=up))
            if state.wanted == 1:
                add("wanted twice", "worker: sends the job once more, as another event", _want(state))
        if state.attempt is not None:
            words: tuple[tuple[str, ErrorWord], ...] = (("no connection", "unavailable"),)
            if state.sent:
                lost: ErrorWord = "unavailable" if self._scenario.idempotent else "unknown_outcome"
                words = (("connection lost", lost), ("no answer", "timeout"))
            for fault, word in words:
                add(fault, f"control: {fault}", self._ended(state, failed(word, "")))


def _want(state: JobState) -> JobState:
    n = state.wanted + 1
    return state._replace(wanted=n, up=(*state.up, n) if state.linked else state.up)


def _unlinked(state: JobState) -> JobState:
    """The state without the worker's connection; what was on its way is lost."""
    elsewhere = state.worker == "elsewhere"
    return state._replace(linked=False, up=(), down=state.down if elsewhere else ())


def _now(state: JobState) -> float:
    return LATE if state.late else NOW
