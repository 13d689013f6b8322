"""Faults of the recording model that are not an answer: deaths, losses, delays.

Each spends one of the state's budget. A fault that takes time suspends the promise of two seconds; the others do not. Faults in
an answer of Twilio or the store are in `control_steps`, and duplicates of the bus in `model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gw.verify.explorer import FREE, Step
from gw.verify.guard.state import (
    LOST,
    NEVER,
    ControlState,
    ModelState,
    StreamState,
    at_rest,
    excused,
    hung_up,
    put_control,
    put_stream,
    spent,
    without_hook,
)

#: Duration of each fault: a full pool two turns; the bus and a restart close to the promise; the store once shorter and once
#: longer than the retries (`recording.retry_s`, `recording.rows.WRITE_S`); a webhook longer than most waits.
POOL_FULL_MS: Final = 250
BUS_LATE_MS: Final = 1500
RESTART_MS: Final = 1000
STORE_SHORT_MS: Final = 1000
STORE_LONG_MS: Final = 40_000
HOOK_LATE_MS: Final = 5000

_Steps = list[Step[ModelState]]


class FaultSteps:
    """The faults of a scenario."""

    def __init__(self, faults: frozenset[str], ended: Callable[[ModelState, StreamState], StreamState], *, moves: bool) -> None:
        """`ended`: a stream after its worker saw its end. `moves`: the first stream may drop without counting as a fault."""
        self._faults = faults
        self._ended = ended
        self._moves = moves

    def add(self, state: ModelState, steps: _Steps) -> None:
        """Add the faults that may happen now. The state has budget left."""
        faults = self._faults
        for n, stream in enumerate(state.streams):
            at = f"worker {n + 1}"
            if stream.phase == "open" and not state.over:
                if "pool full" in faults and stream.flag and not stream.guard_started and not stream.full_ms:
                    full = put_stream(state, n, stream._replace(full_ms=POOL_FULL_MS))
                    steps.append(Step(f"{at}: the pool is full", spent(full), FREE))
                if "stream drops" in faults and not (self._moves and n == 0):
                    dropped = put_stream(state, n, self._ended(state, stream))
                    steps.append(Step(f"{at}: the stream drops, the call lives", spent(dropped), FREE))
            unacked = stream.phase == "ended" and (stream.again or len(stream.outbox) > stream.acked)
            if "worker killed" in faults and (stream.phase == "open" or unacked):
                self._kill_worker(state, n, steps)
            up = state.controls[stream.host].up
            if "bus delayed" in faults and up and len(stream.outbox) > stream.spooled and not stream.late_ms:
                late = put_stream(excused(state), n, excused(state).streams[n]._replace(late_ms=BUS_LATE_MS))
                steps.append(Step(f"{at}: the bus is slow", spent(late), FREE))
        if "control killed" in faults:
            for host, control in enumerate(state.controls):
                if control.up:
                    self._kill_control(state, host, control, steps)
        if "host lost" in faults and sum(control.back_ms != LOST for control in state.controls) > 1:
            for host, control in enumerate(state.controls):
                if control.up:
                    self._lose_host(state, host, control, steps)
        if not state.store_ms and any(control.up for control in state.controls):
            if "store down" in faults:
                steps.append(Step("the store goes away for 1 s", spent(excused(state))._replace(store_ms=STORE_SHORT_MS), FREE))
            if "store down for long" in faults:
                steps.append(Step("the store goes away for 40 s", spent(excused(state))._replace(store_ms=STORE_LONG_MS), FREE))
        for hook in dict.fromkeys(state.hooks):
            if "webhook never" in faults:
                lost = spent(without_hook(state, hook))
                steps.append(Step(f"webhook '{hook.status}' never comes", lost, FREE))
            if "webhook late" in faults and not hook.late_ms:
                hooks = without_hook(state, hook).hooks
                late = state._replace(hooks=tuple(sorted((*hooks, hook._replace(late_ms=HOOK_LATE_MS)))))
                steps.append(Step(f"webhook '{hook.status}' is late", spent(late), FREE))
        for outcome in ("absent", "failed"):
            if f"recording {outcome}" in faults and not state.over and "in-progress" in state.recordings:
                streams = tuple(self._ended(state, one) if one.phase == "open" else one for one in state.streams)
                label = f"the call ends, its recording is {outcome}"
                steps.append(Step(label, spent(hung_up(state, streams, outcome)), FREE))

    def _kill_worker(self, state: ModelState, n: int, steps: _Steps) -> None:
        """The worker dies: its sent events arrive or are lost."""
        stream = state.streams[n]
        dead = stream._replace(phase="dead", pool=0, turn_ms=NEVER, due_ms=NEVER, full_ms=0, again=False)
        steps.append(Step(f"worker {n + 1} is killed, its sent events arrive", spent(put_stream(state, n, dead)), FREE))
        if len(stream.outbox) > stream.spooled:
            lost = dead._replace(outbox=dead.outbox[: dead.spooled], late_ms=0)
            steps.append(Step(f"worker {n + 1} is killed, its sent events are lost", spent(put_stream(state, n, lost)), FREE))

    def _kill_control(self, state: ModelState, host: int, control: ControlState, steps: _Steps) -> None:
        """Control dies: its spool and the rows stay, its work is lost, and the workers send again."""
        name = "control" if len(state.controls) == 1 else f"control {'AB'[host]}"
        dead = ControlState(life=control.life + 1, back_ms=RESTART_MS, wish=control.wish, here=control.here)
        after = put_control(excused(state), host, dead)
        streams = tuple(
            at_rest(stream._replace(batch=(), again=stream.phase != "dead" and stream.acked < len(stream.outbox)))
            if stream.host == host
            else stream
            for stream in after.streams
        )
        steps.append(Step(f"{name} is killed", spent(after._replace(streams=streams)), FREE))

    def _lose_host(self, state: ModelState, host: int, control: ControlState, steps: _Steps) -> None:
        """A host is lost with its processes and its claim, so the call need not be recorded."""
        dead = ControlState(life=control.life, back_ms=LOST)
        after = put_control(excused(state._replace(refused=not state.over)), host, dead)
        streams = tuple(
            StreamState(host, phase="dead", chunks=0, heard=stream.heard, announced=stream.announced)
            if stream.host == host
            else stream
            for stream in after.streams
        )
        steps.append(Step(f"host {'AB'[host]} is lost permanently", spent(after._replace(streams=streams)), FREE))
