"""Model of one call's recording; every decision is the production code's.

The parties are TX, AI-out and its pool at one or two workers, the bus, the control process of one or two hosts with the wish in
its spool, the forwarder, the recorder, the reconcile pass, the claim row in its store, Twilio, and Twilio's webhooks. Any two
steps that could come in either order are tried in both, with two exceptions: steps whose order no party can observe are taken
immediately (the pool's sends, and a worker's end of a stream; a death may lose them), and events that the recorder ignores are
not sent (`Parts.heeded`). Time passes only when no party can act. Faults delay, lose, repeat or kill; each spends one of the
state's budget. `check.GRANTED` lists the assumptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from gw.control.recording import reconcile
from gw.control.store.recordings import SETTLED
from gw.verify.explorer import FREE, SURE, Step
from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.control_steps import ControlSteps
from gw.verify.guard.fault_steps import FaultSteps
from gw.verify.guard.parts import Parts
from gw.verify.guard.state import (
    LOST,
    NEVER,
    ControlState,
    ModelState,
    StreamState,
    at_rest,
    excused,
    hung_up,
    less,
    put_control,
    put_stream,
    span,
    spent,
)

#: From the first frame until the recording must have been started.
START_MS: Final = 2000
#: The longest time in which a party that could act does not; beyond it the party counts as dead (`reconcile.FOREIGN_AGE_S`).
STALL_MS: Final = 60_000

ONE: Final = "never two recordings of one call"
NOT_BEFORE: Final = "no recording before the first frame was sent"
ANNOUNCED: Final = "no recording before the caller has heard that the call is recorded"
PROMPT: Final = "a call that lives 2 s after its first frame is recorded by then"
STARTED: Final = "a call that stays alive is recorded, once the failed parts are back"
SETTLES: Final = "every row settles"
TRUE: Final = "a settled row agrees with Twilio"
ASKED_ONCE: Final = "a stream that was heard asks for its recording exactly once"
NOT_BLOCKED: Final = "AI-out is never blocked"
#: A row's state for a recording's, where they differ.
ROW_OF: Final = {"failed": "absent"}

INVARIANTS: Final = (ONE, NOT_BEFORE, ANNOUNCED, PROMPT, STARTED, SETTLES, TRUE, ASKED_ONCE, NOT_BLOCKED)

ALL_FAULTS: Final = frozenset(
    (
        *("pool full", "kernel full", "stream drops", "stall"),
        *("worker killed", "control killed", "host lost"),
        *("bus delayed", "bus duplicates"),
        *("store down", "store down for long", "commit unclear"),
        *("webhook never", "webhook twice", "webhook late", "recording absent", "recording failed"),
        *("21220", "20404", "20429", "503", "time-out", "unreachable"),  # Twilio's answers: `parts.REFUSALS`
    )
)


class Scenario(NamedTuple):
    """One exploration: number of hosts, possible faults, and faults in one run."""

    name: str
    faults: frozenset[str]
    budget: int
    hosts: int = 1
    chunks: int = 1  # whether further AI audio may come
    notice: bool = False  # the caller is to hear that the call is recorded
    moves: bool = False  # the first stream may drop without counting as a fault


class GuardModel:
    """One scenario, as a model for `gw.verify.explorer`."""

    def __init__(self, scenario: Scenario, rows: RowStore, parts: Parts | None = None) -> None:
        self.scenario = scenario
        self.rows = rows
        self.parts = parts or Parts(rows)
        self._control = ControlSteps(self.parts, rows, scenario.faults)
        self._faults = FaultSteps(scenario.faults, self.ended, moves=scenario.moves)
        self._thresholds = _thresholds(scenario.hosts)

    def first(self) -> ModelState:
        """The stream is open, and no frame was sent."""
        stream = StreamState(host=0, chunks=self.scenario.chunks, announced=not self.scenario.notice)
        return ModelState(self.scenario.budget, (stream,), (ControlState(),) * self.scenario.hosts, reported=self.parts.heeded())

    # -- invariants --------------------------------------------------------------------------------------------------

    def wrong(self, state: ModelState) -> Iterable[str]:
        """The invariants that this state violates."""
        streams = state.streams
        broken = []
        if len(state.recordings) > 1:
            broken.append(ONE)
        if state.recordings and not any(stream.heard for stream in streams):
            broken.append(NOT_BEFORE)
        if state.recordings and not any(stream.announced for stream in streams):
            broken.append(ANNOUNCED)
        if state.blocked:
            broken.append(NOT_BLOCKED)
        for stream in streams:
            if stream.fired not in (0, 1):
                broken.append(ASKED_ONCE)
            if stream.due_ms == 0 and stream.phase == "open" and not state.over:
                broken.append(PROMPT)
        if state.over and state.recordings and self._is_done(state):
            row = self.rows.row(state.row)
            if row is None or row.state != ROW_OF.get(state.recordings[0], state.recordings[0]):
                broken.append(TRUE)
        return broken

    def owing(self, state: ModelState) -> Iterable[str]:
        """The invariants that require this state to be left."""
        if state.over:
            return () if self._is_done(state) else (SETTLES,)
        if (
            not state.recordings
            and not state.refused
            and any(s.heard and s.announced and s.phase == "open" for s in state.streams)
        ):
            return (STARTED,)
        return ()

    def _is_done(self, state: ModelState) -> bool:
        """The call is over, and nothing is under way."""
        row = self.rows.row(state.row)
        if row is not None and row.state not in SETTLED:
            return False
        if state.hooks or any(
            control.lifecycle or ((control.wish or control.here) and control.back_ms != LOST) for control in state.controls
        ):
            return False
        return all(
            len(stream.outbox) == stream.spooled and not stream.batch and not stream.again
            for stream in state.streams
            if state.controls[stream.host].back_ms != LOST
        )

    # -- steps ------------------------------------------------------------------------------------------------

    def steps(self, state: ModelState) -> Sequence[Step[ModelState]]:
        """All steps out of a state."""
        steps: list[Step[ModelState]] = []
        for n, stream in enumerate(state.streams):
            if stream.fired > 1:
                return steps  # such a guard may start recordings without end: no further step is of interest
            if stream.pool:  # commutes with every step but the worker's death, which may lose the event
                sent = stream._replace(pool=stream.pool - 1, outbox=(*stream.outbox, "record"))
                return [Step(f"worker {n + 1}: the pool sends StartRecording", put_stream(state, n, sent), SURE)]
        for n in range(len(state.streams)):
            self._stream_steps(state, n, steps)
        self._control.add(state, steps)
        if not state.over:
            steps.append(Step("the call ends", hung_up(state, self.all_ended(state)), FREE))
            first = state.streams[0]
            if self.scenario.moves and first.phase == "open":
                dropped = put_stream(state, 0, self.ended(state, first))
                steps.append(Step("worker 1: the stream drops, the call lives", dropped, FREE))
            if first.phase != "open" and len(state.streams) == 1:
                host = len(state.controls) - 1
                again = self.scenario.notice and not state.row  # control has no wish: the notice is heard again
                outbox = tuple(kind for kind in state.reported if kind == "started")
                stream = StreamState(host, chunks=0, outbox=outbox, announced=not again)
                steps.append(
                    Step("the call's stream comes back at another worker", state._replace(streams=(first, stream)), FREE)
                )
        sure = any(step.kind == SURE for step in steps)
        if not sure and (wait_ms := self._next_ms(state)):
            steps.append(Step(f"{span(wait_ms)} pass", self._later(state, wait_ms), SURE))
        if state.budget:
            self._faults.add(state, steps)
            if sure and "stall" in self.scenario.faults and 0 < (wait_ms := self._next_ms(state)) <= STALL_MS:
                late = self._later(spent(excused(state)), wait_ms)
                steps.append(Step(f"everything is slow: {span(wait_ms)} pass first", late, FREE))
        return steps

    def ended(self, state: ModelState, stream: StreamState) -> StreamState:
        """The stream after its worker saw its end: AI-out ended and the end is reported, in one step."""
        last = self.parts.last_turn(
            flag=stream.flag, started=stream.guard_started, room=not stream.full_ms, announced=stream.announced
        )
        reports = tuple(kind for kind in state.reported if kind == "ended")
        outbox = (*stream.outbox, *("record",) * (stream.pool + last.fired), *reports)
        fired = stream.fired + last.fired
        if not fired and stream.heard and stream.announced and not stream.full_ms:
            fired = NEVER
        return at_rest(stream._replace(phase="ended", pool=0, fired=fired, outbox=outbox))

    def all_ended(self, state: ModelState) -> tuple[StreamState, ...]:
        """The streams after every open one ended."""
        return tuple(self.ended(state, stream) if stream.phase == "open" else stream for stream in state.streams)

    def _stream_steps(self, state: ModelState, n: int, steps: list[Step[ModelState]]) -> None:
        stream, at = state.streams[n], f"worker {n + 1}"
        if stream.phase == "open":
            if not stream.heard:
                steps.append(Step(f"{at}: TX's first frame reaches the kernel", self._frame(state, n, taken=True), FREE))
                if state.budget and "kernel full" in self.scenario.faults:
                    kept = self._frame(state, n, taken=False)
                    if kept != state:
                        steps.append(Step(f"{at}: TX's first frame does not reach the kernel", spent(kept), FREE))
            if stream.heard and not stream.announced:
                steps.append(Step(f"{at}: the caller has heard the notice", self._announced(state, n), FREE))
            if stream.turn_ms == 0:
                steps.append(Step(f"{at}: AI-out takes its turn", self._turn(state, n, chunk=False), SURE))
            if stream.chunks:
                after = self._turn(state, n, chunk=True)
                if after != state:  # a chunk without an effect may come at any time, any number of times
                    fed = put_stream(after, n, after.streams[n]._replace(chunks=0))
                    steps.append(Step(f"{at}: AI-in brings a further chunk, AI-out takes a turn", fed, FREE))
        if state.controls[stream.host].up:
            self._bus_steps(state, n, steps)

    def _announced(self, state: ModelState, n: int) -> ModelState:
        """Twilio's echo of the mark behind the notice came: AI-out asks at its next turn."""
        stream = state.streams[n]
        due_ms = START_MS if not state.excused and not state.recordings else NEVER
        wait_ms = self.parts.turn(flag=stream.flag, started=stream.guard_started, room=True, chunk=False, announced=False).wait_ms
        return put_stream(state, n, stream._replace(announced=True, turn_ms=wait_ms, due_ms=due_ms))

    def _frame(self, state: ModelState, n: int, *, taken: bool) -> ModelState:
        stream = state.streams[n]
        flag = self.parts.send_frame(flag=stream.flag, taken=taken)
        turn_ms = stream.turn_ms
        if flag and not stream.flag:  # AI-out just began its wait: the longest case
            turn_ms = self.parts.turn(flag=False, started=stream.guard_started, room=True, chunk=False).wait_ms
        due_ms = START_MS if taken and stream.announced and not state.excused and not state.recordings else NEVER
        return put_stream(state, n, stream._replace(flag=flag, heard=stream.heard or taken, turn_ms=turn_ms, due_ms=due_ms))

    def _turn(self, state: ModelState, n: int, *, chunk: bool) -> ModelState:
        stream = state.streams[n]
        turn = self.parts.turn(
            flag=stream.flag,
            started=stream.guard_started,
            room=not stream.full_ms,
            chunk=chunk,
            announced=stream.announced,
        )
        waits = stream.flag and stream.announced and not turn.guard_started
        after = stream._replace(
            chunks=0 if turn.guard_started else stream.chunks,
            guard_started=turn.guard_started,
            fired=stream.fired + turn.fired,
            pool=stream.pool + turn.fired,
            turn_ms=turn.wait_ms if waits else NEVER,
            full_ms=stream.full_ms if waits else 0,
        )
        return put_stream(state, n, after)._replace(blocked=state.blocked or turn.blocked)

    def _bus_steps(self, state: ModelState, n: int, steps: list[Step[ModelState]]) -> None:
        stream, at = state.streams[n], f"worker {n + 1}"
        who = self._control.name(state, stream.host)
        if stream.batch:
            passed = self._passed(put_stream(state, n, stream._replace(batch=(), acked=stream.spooled)), stream)
            steps.append(Step(f"{who} acknowledges and passes on {_list(stream.batch)}", passed, SURE))
            if state.budget and "bus duplicates" in self.scenario.faults and stream.phase != "dead":
                again = self._passed(put_stream(state, n, stream._replace(batch=(), again=True)), stream)
                steps.append(Step(f"{who} passes on {_list(stream.batch)}, its acknowledgement is lost", spent(again), FREE))
        elif not stream.late_ms and (stream.again or len(stream.outbox) > stream.spooled):
            first = stream.acked if stream.again else stream.spooled
            coming = stream.outbox[first:]
            fresh = self.parts.fresh(coming, first + 1, stream.spooled)
            taken = stream._replace(spooled=len(stream.outbox), batch=fresh, again=False)
            if not fresh:
                taken = taken._replace(acked=taken.spooled)
            after = put_stream(state, n, taken)
            if "record" in fresh:
                after = put_control(after, stream.host, after.controls[stream.host]._replace(wish=True))
            steps.append(Step(f"{who} keeps {_list(coming)} of {at}" + ("" if fresh else ", already kept"), after, SURE))

    def _passed(self, state: ModelState, stream: StreamState) -> ModelState:
        """Control's subscribers receive the batch of a stream."""
        control = state.controls[stream.host]
        for kind in stream.batch:
            control = self._control.on_event(control, kind)
        return put_control(state, stream.host, control)

    # -- time -----------------------------------------------------------------------------------------------------------

    def _next_ms(self, state: ModelState) -> int:
        """Milliseconds until something is due; 0 when nothing is."""
        waits = [state.store_ms]
        for stream in state.streams:
            waits += (stream.turn_ms, stream.full_ms, stream.due_ms, stream.late_ms)
        for control in state.controls:
            waits += (control.back_ms, control.wait_ms)
            if control.looks is not None:
                waits.append(control.looks.in_ms)
        waits += [hook.late_ms for hook in state.hooks]
        if state.row:
            waits += [limit_ms - state.age_ms for limit_ms in self._limits(state)]
        return min((wait_ms for wait_ms in waits if wait_ms > 0), default=0)

    def _later(self, state: ModelState, ms: int) -> ModelState:
        streams = tuple(
            stream._replace(
                turn_ms=less(stream.turn_ms, ms),
                full_ms=less(stream.full_ms, ms),
                due_ms=less(stream.due_ms, ms),
                late_ms=less(stream.late_ms, ms),
            )
            for stream in state.streams
        )
        age_ms = 0
        if state.row:
            age_ms = min(max(self._limits(state), default=0), state.age_ms + ms)
        return state._replace(
            streams=streams,
            controls=tuple(self._control.later(control, ms) for control in state.controls),
            hooks=tuple(hook._replace(late_ms=less(hook.late_ms, ms)) for hook in state.hooks),
            store_ms=less(state.store_ms, ms),
            age_ms=age_ms,
        )

    def _limits(self, state: ModelState) -> tuple[int, ...]:
        """The ages of the row at which the reconcile pass may act."""
        row = self.rows.row(state.row)
        return () if row is None else self._thresholds.get(row.state, ())


def _thresholds(hosts: int) -> dict[str, tuple[int, ...]]:
    """Ages in ms, by row state, at which the reconcile pass may decide otherwise."""

    def just_over(*ages_s: float) -> tuple[int, ...]:
        return tuple(round(1000 * age_s) + 1 for age_s in ages_s)

    foreign = hosts > 1
    return {
        "wanted": just_over(reconcile.WANTED_AGE_S),
        "claimed": just_over(reconcile.FOREIGN_AGE_S) if foreign else (),
        "started": just_over(reconcile.STARTED_AGE_S, *((reconcile.LOOK_LAST_S,) if foreign else ())),
    }


def _list(events: Sequence[str]) -> str:
    names = {"started": "CallStarted", "record": "StartRecording", "ended": "CallEnded"}
    return ", ".join(names[event] for event in events)
