"""A model of the pauses of one recording: the caller's digits, an operator, control, its disk, and Twilio.

Decisions are the production code's (`pause_parts`); this file decides only what may happen next. A commit, a request to
Twilio and a wait are separate steps, so anything else may happen between two of them, a death too. Twilio refuses a status
that the recording has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import Again, Ended, Job, Rewritten
from gw.control.jobs.table import Change
from gw.verify.explorer import FREE, SURE, Step
from gw.verify.guard.pause_parts import ENDED, MOMENT_S, NOW, Act, Memory, PauseParts, Point, Stop, Typing, World, pause_of
from metrics.page import Page

UNHEARD: Final = "no recording runs while sensitive digits count"
CONTINUES: Final = "a recording that was paused for digits runs again"
STAYS: Final = "a recording that an operator paused stays paused"
ANSWERED: Final = "a worker learns whether the recording is paused"
PAUSE_INVARIANTS: Final = (UNHEARD, CONTINUES, STAYS, ANSWERED)

PAUSE_FAULTS: Final = frozenset(
    (
        *("control killed", "worker killed", "commit unclear", "answer doubled"),
        *("503", "time-out", "unreachable"),
    )
)
#: Twilio's refusal of a status that the recording has.
_REFUSED: Final = "21220"

Status = Literal["", "in-progress", "paused"]


class PauseScenario(NamedTuple):
    """One exploration. `budget`: faults in one run."""

    name: str
    faults: frozenset[str]
    budget: int
    collections: int = 1  # that the agent asks for
    operator: tuple[bool, ...] = ()  # acts in sequence: pause, or let it continue
    late: bool = False  # the recording starts while the caller may type
    hosts: int = 1


class Run(NamedTuple):
    """An attempt under way."""

    act: Act
    history: tuple[Point, ...]
    stop: Stop


class PauseState(NamedTuple):
    """The whole model at one moment."""

    budget: int
    stream: Literal["open", "ended", "dead"] = "open"
    phase: Literal["", "asked", "counts"] = ""
    collections: int = 0
    typing: Typing = Typing()
    outbox: tuple[str, ...] = ()  # events of the worker that are not on disk
    control: bool = True
    memory: Memory = Memory()
    rows: tuple[Job, ...] = ()
    runs: tuple[Run, ...] = ()
    ends: tuple[Change, ...] = ()  # of attempts, not on disk
    moment: int = 0  # times that a worker's patience ended
    recording: Status = "in-progress"
    creating: bool = False
    acts: int = 0  # of the operator, that are done
    held: bool = False  # the operator's pause is in effect
    disturbed: bool = False  # and something else ended it
    unclear: bool = False  # an act of the operator was interrupted
    noted: bool = False  # it is on disk
    stored: bool = False  # it is in the store


class PauseModel:
    """Steps and invariants of one recording's pauses."""

    def __init__(self, scenario: PauseScenario, page: Page) -> None:
        self._scenario = scenario
        self.parts = PauseParts(page)

    def first(self) -> PauseState:
        return PauseState(self._scenario.budget, recording="" if self._scenario.late else "in-progress")

    def wrong(self, state: PauseState) -> Iterable[str]:
        if state.phase == "counts" and state.recording == "in-progress":
            yield UNHEARD
        if state.disturbed:
            yield STAYS

    def owing(self, state: PauseState) -> Iterable[str]:
        is_acting = any(run.act.job is None for run in state.runs) or state.acts < len(self._scenario.operator) or state.unclear
        if not state.phase and state.recording == "paused" and not state.held and not is_acting:
            yield CONTINUES
        if state.held and state.recording == "in-progress" and not is_acting:
            yield STAYS
        if state.phase == "asked":
            yield ANSWERED

    def steps(self, state: PauseState) -> Sequence[Step[PauseState]]:
        steps: list[Step[PauseState]] = []
        self._worker(state, steps)
        if state.control:
            self._bus(state, steps)
            self._turns(state, steps)
            for n in range(len(state.runs)):
                self._run(state, n, steps)
            self._acts(state, steps)
        else:
            back = _in(state, self.parts.restart(_world(state)._replace(noted=state.noted)))._replace(control=True)
            steps.append(Step("control is back", back, SURE))
        if state.budget:
            self._faults(state._replace(budget=state.budget - 1), steps)
        return steps

    # -- the worker -------------------------------------------------------------------------------------------------------

    def _worker(self, state: PauseState, steps: list[Step[PauseState]]) -> None:
        if state.stream != "open":
            return
        if not state.phase and state.collections < self._scenario.collections:
            asked = self._conceal(state._replace(phase="asked", collections=state.collections + 1), on=True)
            steps.append(Step("worker: the agent asks for sensitive digits", asked, FREE))
        if state.phase:
            kind = SURE if state.phase == "asked" and state.moment == state.collections else FREE
            ended = self._conceal(state._replace(phase=""), on=False)
            if state.phase == "counts":
                steps.append(Step("worker: the caller has typed", ended, FREE))
            elif kind == SURE:
                steps.append(Step("worker: gives up the pause", ended, SURE))
        if state.phase == "asked":
            if state.moment < state.collections:
                steps.append(Step("6 s pass", state._replace(moment=state.collections), FREE))
            if state.control:
                for job_id, outcome in self._results(state):
                    if job_id == state.typing.awaited:
                        steps.append(Step(f"worker: receives {outcome}", self._received(state, job_id, outcome), SURE))
        last = self._conceal(state._replace(phase=""), on=False) if state.phase else state
        gone = last._replace(stream="ended", outbox=(*last.outbox, ENDED))
        steps.append(Step("worker: the stream ends", gone, FREE))

    def _conceal(self, state: PauseState, *, on: bool) -> PauseState:
        typing, wanted = self.parts.conceal(state.typing, on, state.moment)
        return state._replace(typing=typing, outbox=(*state.outbox, *wanted))

    def _results(self, state: PauseState) -> list[tuple[str, str]]:
        """Return the results of pauses, on disk or about to be."""
        known = {job.id: job for job in state.rows} | {end.after.id: end.after for end in state.ends}
        return [(job.id, job.outcome) for job in known.values() if job.kind == "pause" and not job.is_open]

    def _received(self, state: PauseState, job_id: str, outcome: str) -> PauseState:
        typing, effect = self.parts.receive(state.typing, job_id, outcome)
        state = state._replace(typing=typing)
        if effect == "counts" and state.phase == "asked":
            return state._replace(phase="counts")
        if effect == "refused" and state.phase == "asked":
            return self._conceal(state._replace(phase=""), on=False)
        return state

    # -- control ------------------------------------------------------------------------------------------------------------

    def _bus(self, state: PauseState, steps: list[Step[PauseState]]) -> None:
        if state.stream == "dead" and not state.outbox:
            lost = _in(state, self.parts.accept(_world(state), (ENDED,)))._replace(stream="ended")
            steps.append(Step("control ends the stream of the dead worker", lost, SURE))
        for count in {1, len(state.outbox)} if state.outbox else ():
            taken = self.parts.accept(_world(state), state.outbox[:count])
            rest = _in(state, taken)._replace(outbox=state.outbox[count:])
            steps.append(Step(f"control keeps {', '.join(_short(one) for one in state.outbox[:count])}", rest, SURE))
            if state.budget and "commit unclear" in self._scenario.faults:
                again = state._replace(budget=state.budget - 1, memory=taken.memory)
                steps.append(Step("control's commit fails, and comes again", again, FREE))
        if state.noted is not state.stored:
            steps.append(Step("the forwarder stores the operator's act", state._replace(stored=state.noted), SURE))
        if self._scenario.late and not state.recording:
            if state.creating:
                made = state._replace(recording="in-progress", creating=False)
                steps.append(Step("Twilio begins the recording", made, SURE))
            elif not self.parts.forbids_create(state.memory):
                steps.append(Step("control asks Twilio for the recording", state._replace(creating=True), FREE))

    def _turns(self, state: PauseState, steps: list[Step[PauseState]]) -> None:
        if not state.ends and all(job.state != "wanted" for job in state.rows):
            return
        world, claimed, expired = self.parts.turn(_world(state), state.ends)
        after = _in(state, world)._replace(ends=())
        for job in claimed:
            after = self._begun(after, Act(job))
        names = [
            *(f"{_short(end.after.id)} {end.after.state}" for end in state.ends),
            *(f"claims {_short(job.id)}" for job in claimed),
        ]
        names += [f"{_short(job.id)} expires" for job in expired]
        steps.append(Step(f"control commits: {', '.join(names)}", after, SURE))

    def _begun(self, state: PauseState, act: Act) -> PauseState:
        history = (Point(_met(state)),)
        return self._settled(state, Run(act, history, self.parts.advance(act, history)))

    def _continued(self, state: PauseState, n: int, answer: object) -> PauseState:
        run = state.runs[n]
        history = (*run.history, Point(_met(state), answer))
        others = state._replace(runs=(*state.runs[:n], *state.runs[n + 1 :]))
        return self._settled(others, Run(run.act, history, self.parts.advance(run.act, history)))

    def _settled(self, state: PauseState, run: Run) -> PauseState:
        """Take over what an attempt did until its wait, or its end."""
        stop, job = run.stop, run.act.job
        state = state._replace(memory=stop.memory, noted=stop.noted[-1] if stop.noted else state.noted)
        if stop.request:
            return state._replace(runs=(*state.runs, run))
        if job is None:
            is_done = stop.result is True
            return state._replace(acts=state.acts + 1, held=run.act.holds if is_done else state.held)
        assert isinstance(stop.result, Again | Ended | Rewritten)
        after = lifecycle.on_outcome(job, stop.result, NOW + MOMENT_S * state.moment)
        return state._replace(ends=(*state.ends, Change(job, after)))

    def _run(self, state: PauseState, n: int, steps: list[Step[PauseState]]) -> None:
        """Continue an attempt that waits: for the lock, for time, or for Twilio."""
        run = state.runs[n]
        who = "operator" if run.act.job is None else _short(run.act.job.id)
        what, *detail = run.stop.request
        if what == "lock":
            if not any(other.stop.locks for other in state.runs):
                steps.append(Step(f"{who}: has the lock", self._continued(state, n, None), SURE))
        elif what == "sleep":
            late = run.act.job is not None and NOW + MOMENT_S * state.moment > run.act.job.deadline_at
            if run.stop.locks or not state.creating or late:
                steps.append(Step(f"{who}: has slept", self._continued(state, n, None), SURE))
        elif what == "list":
            steps.append(Step(f"{who}: lists {state.recording}", self._continued(state, n, state.recording), SURE))
            self._failures(state, n, state, f"{who}: lists", steps)
        else:
            (status,) = detail
            obeys = state.recording not in ("", status)
            disturbs = obeys and state.held and status == "in-progress" and run.act.job is not None
            recording: Status = "paused" if status == "paused" else "in-progress"
            done = state._replace(recording=recording, disturbed=disturbs) if obeys else state
            answer = None if obeys else _REFUSED
            label = f"{who}: asks Twilio for {status}"
            steps.append(Step(f"{label}: {'done' if obeys else 'refused'}", self._continued(done, n, answer), SURE))
            self._failures(state, n, done, label, steps)
            if state.budget and "control killed" in self._scenario.faults and done != state:
                killed = _killed(done._replace(budget=state.budget - 1))
                steps.append(Step(f"{label}: done, and control is killed", killed, FREE))

    def _failures(self, state: PauseState, n: int, done: PauseState, label: str, steps: list[Step[PauseState]]) -> None:
        """Add every other end of a request."""
        for name in ("503", "time-out", "unreachable"):
            if not state.budget or name not in self._scenario.faults:
                continue
            for base in {state, done} if name != "unreachable" else {state}:
                failed = self._continued(base._replace(budget=state.budget - 1), n, name)
                steps.append(Step(f"{label}: {name}{', but it is done' if base is not state else ''}", failed, FREE))

    def _acts(self, state: PauseState, steps: list[Step[PauseState]]) -> None:
        acts = self._scenario.operator
        if state.acts < len(acts) and not any(run.act.job is None for run in state.runs):
            holds = acts[state.acts]
            wanted = self._begun(state._replace(held=state.held and holds), Act(None, holds))
            steps.append(Step(f"operator: {'pauses' if holds else 'lets it continue'}", wanted, FREE))

    # -- faults -------------------------------------------------------------------------------------------------------------

    def _faults(self, state: PauseState, steps: list[Step[PauseState]]) -> None:
        """Add the faults that are not an answer. The state has paid for one."""
        faults = self._scenario.faults
        if state.control and "control killed" in faults:
            steps.append(Step("control is killed", _killed(state), FREE))
        if state.stream == "open" and "worker killed" in faults:
            dead = state._replace(stream="dead", phase="")
            steps.append(Step("the worker is killed, its events arrive", dead, FREE))
            if state.outbox:
                steps.append(Step("the worker is killed, its events are lost", dead._replace(outbox=()), FREE))
        if state.stream == "open" and "answer doubled" in faults:
            for job_id, outcome in self._results(state):
                again = self._received(state, job_id, outcome)
                steps.append(Step(f"worker: receives {outcome} of {_short(job_id)} once more", again, FREE))


def _killed(state: PauseState) -> PauseState:
    """Control dies: the disk stays; attempts, memory and unwritten ends are lost. The operator asks again."""
    unclear = state.unclear or any(run.act.job is None and run.stop.locks for run in state.runs)
    return state._replace(control=False, memory=Memory(), runs=(), ends=(), creating=False, unclear=unclear)


def _world(state: PauseState) -> World:
    return World(state.memory, state.rows, state.moment, state.creating, state.stored)


def _met(state: PauseState) -> World:
    """The world as an attempt meets it: of the disk, it looks for resumes."""
    return _world(state)._replace(
        rows=tuple(
            lifecycle.want(job.id, job.kind, job.call_sid, "", deadline_at=NOW, now=NOW)
            for job in state.rows
            if job.kind == "resume"
        )
    )


def _in(state: PauseState, world: World) -> PauseState:
    return state._replace(memory=world.memory, rows=world.rows)


def _short(job_id: str) -> str:
    return job_id if job_id == ENDED else f"{job_id.split('/')[1]} {pause_of(job_id)}"
