"""States of the recording model: values only, small enough to hold some hundred thousand.

Times are milliseconds to or since an event, never absolute, so that the same situation at another time is the same state.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.control.recording.lifecycle import Lifecycle
from gw.verify.guard.parts import Looks

#: No time is running.
NEVER: Final = -1
#: Instead of the time to a restart: the host is lost.
LOST: Final = -2


class StreamState(NamedTuple):
    """One stream of the call, at its own worker."""

    host: int
    phase: str = "open"  # open | ended | dead
    chunks: int = 1  # whether further AI audio may come and change something
    flag: bool = False  # TX's `first_audio_sent`
    heard: bool = False  # the kernel took a frame
    announced: bool = True  # the caller has heard that the call is recorded, or need not
    guard_started: bool = False  # the guard's `recording_started`
    turn_ms: int = NEVER  # to AI-out's next turn
    fired: int = 0  # starts of the recording by AI-out; NEVER: a start is missing
    pool: int = 0  # greenlets that will send StartRecording
    full_ms: int = 0  # time for which the pool is full
    due_ms: int = NEVER  # to the moment by which a recording must have been started
    outbox: tuple[str, ...] = ()  # the worker's events
    acked: int = 0  # of these, acknowledged
    spooled: int = 0  # of these, in control's spool
    batch: tuple[str, ...] = ()  # committed, but not yet passed to control's subscribers
    again: bool = False  # the worker sends the unacknowledged events once more
    late_ms: int = 0  # time for which the link delivers nothing


class ControlState(NamedTuple):
    """One host's control process. `wish`: its spool has a StartRecording that the store lacks."""

    life: int = 1
    back_ms: int = NEVER  # to the restart; NEVER: it runs; LOST: there is no restart
    lifecycle: Lifecycle | None = None
    wait_ms: int = 0  # to the lifecycle's next action, to Twilio's answer, or to giving up an outcome
    answer: object = None  # Twilio's answer on its way
    holding: bool = False  # an outcome waits for the store
    wish: bool = False
    here: int = 0  # the life that claimed the recording in the spool; 0: no claim, or the store has it
    looks: Looks | None = None

    @property
    def up(self) -> bool:
        """True while the process runs."""
        return self.back_ms == NEVER


class Hook(NamedTuple):
    """A webhook on its way. `of`: the recording's number, 0 for the call's end."""

    status: str
    of: int
    late_ms: int = 0


class ModelState(NamedTuple):
    """The whole model at one moment."""

    budget: int  # faults that may still happen
    streams: tuple[StreamState, ...]
    controls: tuple[ControlState, ...]
    over: bool = False  # the call, at Twilio
    recordings: tuple[str, ...] = ()  # at Twilio, by their state
    hooks: tuple[Hook, ...] = ()
    store_ms: int = 0  # time for which the store is away
    row: int = 0  # the form of the claim row
    age_ms: int = 0  # since the row came into its state
    excused: bool = False  # a fault took time: the recording may start later than promised
    refused: bool = False  # Twilio refused permanently
    blocked: bool = False  # AI-out waited for the pool
    reported: tuple[str, ...] = ()  # of a stream's start and end, the events that control acts on; others are not sent


def put_stream(state: ModelState, n: int, stream: StreamState) -> ModelState:
    """The state with another stream at index `n`."""
    streams, stream = state.streams, at_rest(stream)
    return state._replace(streams=(*streams[:n], stream, *streams[n + 1 :]))


def put_control(state: ModelState, host: int, control: ControlState) -> ModelState:
    """The state with another control process at `host`."""
    controls = state.controls
    return state._replace(controls=(*controls[:host], control, *controls[host + 1 :]))


def spent(state: ModelState) -> ModelState:
    """The state after one more fault."""
    return state._replace(budget=state.budget - 1)


def without_promise(state: ModelState) -> ModelState:
    """The state without a due recording: there is one, the call is over, or a fault took the time."""
    if all(stream.due_ms == NEVER for stream in state.streams):
        return state
    return state._replace(streams=tuple(stream._replace(due_ms=NEVER) for stream in state.streams))


def excused(state: ModelState) -> ModelState:
    """The state after a fault that took time: the recording may be late. No effect once it exists, or the call is over."""
    if state.recordings or state.over:
        return state
    return without_promise(state._replace(excused=True))


def at_rest(stream: StreamState) -> StreamState:
    """Reduce a stream that ended to the facts that still matter.

    Once control has all its events, only `heard` matters, and a number of starts other than one.
    """
    if stream.phase not in ("ended", "dead"):
        return stream
    fired = 0 if stream.fired == 1 else stream.fired
    has_all = len(stream.outbox) == stream.spooled and not stream.batch and not stream.again
    if has_all and (stream.phase == "dead" or stream.acked == stream.spooled):
        return StreamState(stream.host, stream.phase, chunks=0, heard=stream.heard, announced=stream.announced, fired=fired)
    return stream._replace(chunks=0, flag=False, guard_started=False, fired=fired, turn_ms=NEVER, full_ms=0, due_ms=NEVER)


def with_hook(state: ModelState, hook: Hook) -> ModelState:
    """The state with a further webhook on its way; their order has no meaning."""
    return state._replace(hooks=tuple(sorted((*state.hooks, hook))))


def without_hook(state: ModelState, hook: Hook) -> ModelState:
    """The state with this webhook gone."""
    hooks = list(state.hooks)
    hooks.remove(hook)
    return state._replace(hooks=tuple(hooks))


def recorded(state: ModelState) -> ModelState:
    """The state after Twilio began a recording."""
    recordings = (*state.recordings, "in-progress")
    began = without_promise(state._replace(recordings=recordings, excused=False, refused=False))
    return with_hook(began, Hook("in-progress", len(recordings)))


def hung_up(state: ModelState, streams: tuple[StreamState, ...], outcome: str = "completed") -> ModelState:
    """The state after the call's end at Twilio: streams and recordings have ended, and webhooks report them."""
    after = with_hook(state._replace(over=True, excused=False, refused=False, streams=streams), Hook("over", 0))
    for n, status in enumerate(state.recordings, 1):
        if status == "in-progress":
            after = with_hook(after, Hook(outcome, n))
    done = tuple(outcome if status == "in-progress" else status for status in state.recordings)
    return after._replace(recordings=done)


def less(wait_ms: int, ms: int) -> int:
    """The rest of a wait after `ms`."""
    return wait_ms if wait_ms < 0 else max(0, wait_ms - ms)


def span(ms: int) -> str:
    """A duration as text."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:g} s"
