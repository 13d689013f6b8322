"""What a state of the recording model is: values only, small enough that a hundred thousand of them are held.

Times are milliseconds still to go, or since; none is absolute, so the same situation at another time is the same state.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.control.recording.lifecycle import Lifecycle
from gw.verify.guard.parts import Looks

#: No time is running.
NEVER: Final = -1
#: In place of a control's way back: its host is lost for good.
LOST: Final = -2


class StreamState(NamedTuple):
    """One stream of the call, at a worker of its own.

    `flag` is TX's, `guard_started` the guard's; `heard`: the kernel took a frame. `outbox` are the worker's events, of which
    control's spool has `spooled` and the worker knows it of `acked`; `batch` is committed and not told yet.
    """

    host: int
    phase: str = "open"  # open | ended | dead
    chunks: int = 1  # whether further AI audio may come and change something
    flag: bool = False
    heard: bool = False
    guard_started: bool = False
    turn_ms: int = NEVER  # to AI-out's next turn
    fired: int = 0  # how often AI-out set the recording going; NEVER: it should have and did not
    pool: int = 0  # greenlets that will send StartRecording
    full_ms: int = 0  # how long the pool is full
    due_ms: int = NEVER  # until a recording must have been started
    outbox: tuple[str, ...] = ()
    acked: int = 0
    spooled: int = 0
    batch: tuple[str, ...] = ()
    again: bool = False  # the worker sends what is not acknowledged once more
    late_ms: int = 0  # how long the link delivers nothing


class ControlState(NamedTuple):
    """One host's control process. `wish`: its spool has a StartRecording the store does not."""

    life: int = 1
    back_ms: int = NEVER  # until it is restarted; NEVER: it runs; LOST: nobody restarts it
    lifecycle: Lifecycle | None = None
    wait_ms: int = 0  # to the lifecycle's next act, or to Twilio's answer, or until an outcome is given up
    answer: object = None  # what Twilio is about to answer
    holding: bool = False  # an outcome waits for the store
    wish: bool = False
    here: int = 0  # the life in which the recording was claimed in its spool; 0: the store has the claim, or there is none
    looks: Looks | None = None

    @property
    def up(self) -> bool:
        return self.back_ms == NEVER


class Hook(NamedTuple):
    """A webhook of Twilio's on its way. `of`: the recording's number, 0 for the call's end."""

    status: str
    of: int
    late_ms: int = 0


class State(NamedTuple):
    """Everything that counts, at one moment."""

    budget: int  # faults that may still happen
    streams: tuple[StreamState, ...]
    controls: tuple[ControlState, ...]
    over: bool = False  # the call, at Twilio
    recordings: tuple[str, ...] = ()  # at Twilio, by their state
    hooks: tuple[Hook, ...] = ()
    store_ms: int = 0  # how long the store is away
    row: int = 0  # the form of the claim row
    age_ms: int = 0  # since the row came into its state
    excused: bool = False  # a fault took time: the recording may start later than promised
    refused: bool = False  # Twilio said no for good
    blocked: bool = False  # AI-out waited for the pool
    tells: tuple[str, ...] = ()  # of a stream's beginning and end, what control acts on: the rest is not sent here


def put_stream(state: State, n: int, stream: StreamState) -> State:
    """The state with another stream in place `n`."""
    streams, stream = state.streams, at_rest(stream)
    return state._replace(streams=(*streams[:n], stream, *streams[n + 1 :]))


def put_control(state: State, host: int, control: ControlState) -> State:
    """The state with another control process at `host`."""
    controls = state.controls
    return state._replace(controls=(*controls[:host], control, *controls[host + 1 :]))


def spent(state: State) -> State:
    """A fault happened."""
    return state._replace(budget=state.budget - 1)


def without_promise(state: State) -> State:
    """No recording is due any more: there is one, or the call is over, or a fault took the time."""
    if all(stream.due_ms == NEVER for stream in state.streams):
        return state
    return state._replace(streams=tuple(stream._replace(due_ms=NEVER) for stream in state.streams))


def excused(state: State) -> State:
    """A fault took time: the recording may be later than promised. Means nothing once there is one, or the call is over."""
    if state.recordings or state.over:
        return state
    return without_promise(state._replace(excused=True))


def at_rest(stream: StreamState) -> StreamState:
    """A stream that is over: once control has heard all of it, only whether it was heard by the caller still counts.

    That it asked for its recording once means nothing any more; that it asked twice, or not at all, is kept.
    """
    if stream.phase not in ("ended", "dead"):
        return stream
    fired = 0 if stream.fired == 1 else stream.fired
    heard_all = len(stream.outbox) == stream.spooled and not stream.batch and not stream.again
    if heard_all and (stream.phase == "dead" or stream.acked == stream.spooled):
        return StreamState(stream.host, stream.phase, chunks=0, heard=stream.heard, fired=fired)
    return stream._replace(chunks=0, flag=False, guard_started=False, fired=fired, turn_ms=NEVER, full_ms=0, due_ms=NEVER)


def with_hook(state: State, hook: Hook) -> State:
    """A webhook is on its way; their order means nothing."""
    return state._replace(hooks=tuple(sorted((*state.hooks, hook))))


def without_hook(state: State, hook: Hook) -> State:
    hooks = list(state.hooks)
    hooks.remove(hook)
    return state._replace(hooks=tuple(hooks))


def recorded(state: State) -> State:
    """Twilio began a recording."""
    recordings = (*state.recordings, "in-progress")
    began = without_promise(state._replace(recordings=recordings, excused=False, refused=False))
    return with_hook(began, Hook("in-progress", len(recordings)))


def hung_up(state: State, streams: tuple[StreamState, ...], outcome: str = "completed") -> State:
    """The call is over at Twilio, its streams have ended: its recordings come to their end, and webhooks say so."""
    after = with_hook(state._replace(over=True, excused=False, refused=False, streams=streams), Hook("over", 0))
    for n, status in enumerate(state.recordings, 1):
        if status == "in-progress":
            after = with_hook(after, Hook(outcome, n))
    done = tuple(outcome if status == "in-progress" else status for status in state.recordings)
    return after._replace(recordings=done)


def less(wait_ms: int, ms: int) -> int:
    """A wait after `ms` of it passed."""
    return wait_ms if wait_ms < 0 else max(0, wait_ms - ms)


def span(ms: int) -> str:
    """A time in words."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:g} s"
