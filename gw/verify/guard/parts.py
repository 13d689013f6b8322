"""Questions to the production code: TX, AI-out, the bus, the recorder, the status callbacks and the reconcile pass.

Each part gets the events, frames, rows and listings of one state, with stand-ins for its dependencies; the work that it starts,
or the wait that it begins, is the answer. Each question is asked once per `Parts` and its answer cached, so construct `Parts`
after replacing parts of the production code. Every decision is the production code's. A model of another guard replaces methods
of `Parts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar, cast

import msgspec

from gw import bus
from gw.call import guard
from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.call.quality import Quality
from gw.config import Config
from gw.control.bus import server
from gw.control.calls import status_callbacks
from gw.control.calls.registry import Calls
from gw.control.recording import lifecycle as machine
from gw.control.recording import reconcile, recorder
from gw.control.recording.lifecycle import OUR_SOURCE, Lifecycle, Outcome
from gw.control.twilio_api.answers import Kind, Listed, RestError, Started
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.media import ai_out as ai_out_module
from gw.media import tx as tx_module
from gw.protocol.audio import FRAME_BYTES, SILENCE_BYTE
from gw.verify.guard.claim_row import ACCOUNT, RowStore

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from gw.control.twilio_api.accounts import Accounts
    from gw.media.hub.clock import Alarm

CALL: Final = "CA" + "0" * 32
#: The time of every state, in epoch seconds; ages count back from it.
NOW: Final = 2_000_000_000.0
#: The monotonic time of every state.
NOW_S: Final = 1_000_000_000.0
#: The highest age of a lifecycle, well beyond `recording.retry_s`; an older one is the same state.
MOST_S: Final = 100.0
#: The chance that gives random waits their nominal length.
CHANCE: Final = 0.5

#: Twilio's errors by name: kind, number and status.
REFUSALS: Final[dict[str, tuple[Kind, int, int]]] = {
    "21220": ("not_in_progress", 21220, 400),
    "20404": ("gone", 20404, 404),
    "20429": ("busy", 20429, 429),
    "503": ("server", 0, 503),
    "time-out": ("timeout", 0, 0),
    "unreachable": ("unreachable", 0, 0),
}


class Looks(NamedTuple):
    """The reconcile pass's memory of a row it looked at: time to the next look, and the wait after that."""

    in_ms: int
    wait_s: float


class Pass(NamedTuple):
    """Effects of a reconcile pass on a row."""

    lifecycle: Lifecycle | None  # that it started
    outcome: Outcome | None  # that it wrote
    looks: Looks | None
    asked: bool  # whether it asked Twilio


class AiOutTurn(NamedTuple):
    """Result of one turn of AI-out."""

    fired: int  # starts of the recording; 2 means two or more
    guard_started: bool  # the guard's state afterwards
    wait_ms: int  # the longest wait until the next turn; -1: without a bound
    blocked: bool  # AI-out would have waited for the pool


class StandIn:
    """Replacement for a dependency: exactly the attributes given."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class _TurnOver(Exception):  # noqa: N818  not an error: leaves the loop where it waits
    """AI-out waits."""


def asked_once(question: Callable[Concatenate[Parts, P], T]) -> Callable[Concatenate[Parts, P], T]:
    """Cache the answers to a question, by its arguments."""

    @functools.wraps(question)
    def ask(parts: Parts, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (question, args, tuple(kwargs.items()))
        if key not in parts.answers:
            parts.answers[key] = question(parts, *args, **kwargs)
        return cast("T", parts.answers[key])

    return ask


class Parts:
    """The production code of one call, in control and in the media plane."""

    def __init__(self, rows: RowStore) -> None:
        self.row_store = rows
        self.answers: dict[tuple[object, ...], object] = {}
        self._config = Config()
        self._cells = tx_module.TxCells(rows.page)
        self.retry_s = self._config.recording.retry_s
        #: The bound of one REST request. Source: `TwilioRest.bound_s`; a read that is never answered takes that long.
        self.rest_bound_ms = round(1000 * (2 * self._config.twilio.timeout_s + 1.0))

    # -- TX and AI-out --------------------------------------------------------------------------------------------------

    @asked_once
    def send_frame(self, *, flag: bool, taken: bool) -> bool:
        """Let TX's loop send one frame. Returns `first_audio_sent` afterwards. `taken`: the kernel took the frame."""
        tx = self._tx(flag)

        def write(data: bytes) -> bool:
            tx.stopped = True  # one frame, then the loop ends
            return taken

        tx._transport = cast("Any", StandIn(write=write, failure=""))
        tx.queue.append(tx_module.Ready(0, b"a frame", True))
        tx.run()
        return tx.first_audio_sent

    def _tx(self, flag: bool) -> tx_module.Tx:
        transport = cast("Any", StandIn(write=lambda data: True, failure=""))
        clock = cast("Any", StandIn(wait_until=lambda deadline_s: None))
        tx = tx_module.Tx(transport, Pacer(100), Playout(1000), clock, self._cells)
        tx.first_audio_sent = flag
        return tx

    @asked_once
    def turn(self, *, flag: bool, started: bool, room: bool, chunk: bool, announced: bool = True) -> AiOutTurn:
        """Let AI-out's loop take one turn; `chunk`: because AI-in brought audio. `announced`: the caller has heard the notice."""
        return self._turn(flag, started, room, chunk, announced)

    @asked_once
    def last_turn(self, *, flag: bool, started: bool, room: bool, announced: bool = True) -> AiOutTurn:
        """Let AI-out's loop end, after it was stopped."""
        return self._turn(flag, started, room, None, announced)

    def _turn(self, flag: bool, started: bool, room: bool, chunk: bool | None, announced: bool) -> AiOutTurn:
        fired: list[bool] = []
        waits: list[float | None] = []
        call_guard = guard.RecordingGuard(enabled=True, is_announced=announced)
        call_guard.recording_started = started
        tx = self._tx(flag)
        ai_out = ai_out_module.AiOut(
            "MZ" + "0" * 32,
            tx,
            tx._playout,
            call_guard,
            lead_ms=100,
            pool_has_room=lambda: room,
            on_record=lambda: fired.append(True),
            on_first_audio=lambda sent_s: None,
        )
        if chunk:
            ai_out.playout.push("response", "item", bytes([SILENCE_BYTE]) * (3 * FRAME_BYTES))

        def wait(timeout: float | None = None) -> bool:
            waits.append(timeout)
            raise _TurnOver

        ai_out._wake = cast("Alarm", StandIn(wait=wait, set=lambda: None))
        ai_out.stopped = chunk is None
        try:
            ai_out.run()
        except _TurnOver:
            pass  # one turn was taken, and its wait began
        wait_ms = -1 if not waits or waits[0] is None else round(1000 * waits[0])
        return AiOutTurn(min(2, len(fired)), call_guard.recording_started, wait_ms, blocked=bool(fired) and not room)

    # -- the bus --------------------------------------------------------------------------------------------------------

    @asked_once
    def fresh(self, events: tuple[str, ...], first: int, last: int) -> tuple[str, ...]:
        """Return the new events among those numbered from `first`. `last`: the newest that control has."""
        numbered = [bus.Numbered(first + k, _event(kind)) for k, kind in enumerate(events)]
        fresh = server.sort_messages(cast("Any", StandIn(index=0)), last, numbered).fresh
        return tuple(events[entry.n - first] for entry in fresh)

    # -- the recorder ---------------------------------------------------------------------------------------------------

    @asked_once
    def after_event(self, lifecycle: Lifecycle | None, kind: str) -> Lifecycle | None:
        """Pass an event of the call to control's subscribers. Returns the recorder's lifecycle afterwards."""
        made = self._recorder(lifecycle)
        hooks = self._webhooks(made, [])
        event = _event(kind)
        made.on_event(event)
        hooks.on_event(event)
        return _lifecycle_of(made)

    def heeded(self) -> tuple[str, ...]:
        """The events of a stream's start and end that the recorder acts on."""
        idle, busy = None, machine.begin(NOW_S, self.retry_s)
        over = busy.on_call_over()
        return tuple(kind for kind in ("started", "ended") if any(self.after_event(at, kind) != at for at in (idle, busy, over)))

    @asked_once
    def webhook(self, status: str, sid: str) -> Outcome | None:
        """Return the outcome in a recording's status callback."""
        written: list[Outcome] = []
        hooks = self._webhooks(self._recorder(None), written)
        fields = {"CallSid": CALL, "RecordingSid": sid, "RecordingStatus": status, "RecordingSource": OUR_SOURCE}
        hooks.on_stored(bus.Webhook("recording", NOW, fields))
        return written[0] if written else None

    @asked_once
    def answered(self, lifecycle: Lifecycle, answer: object, owned: bool) -> Lifecycle:
        """The lifecycle after Twilio's answer: a name of REFUSALS, `started` with a SID, or the listed states."""
        if isinstance(answer, tuple):
            return lifecycle.on_answer(listed(answer), NOW_S, CHANCE, owned=owned)
        if str(answer).startswith("started "):
            return lifecycle.on_answer(Started(str(answer).partition(" ")[2], "in-progress"), NOW_S, CHANCE, owned=owned)
        kind, code, status = REFUSALS[str(answer)]
        return lifecycle.on_answer(RestError(kind, code, status, ""), NOW_S, CHANCE, owned=owned)

    def _recorder(self, lifecycle: Lifecycle | None) -> recorder.Recorder:
        made = recorder.Recorder(
            self._config,
            self.row_store.store,
            _accounts(),
            self.row_store.rows,
            self.row_store.page,
            owner="host/0",
            claims=cast("Any", StandIn(holds=lambda call_sid: False)),
            is_owned=lambda call_sid: False,
            is_over=lambda call_sid: False,
        )
        made._pool = cast("Any", StandIn(full=lambda: False, spawn=lambda *work: None))
        if lifecycle is not None:
            made._jobs[CALL] = recorder._Job(lifecycle, None)
        return made

    def _webhooks(self, made: recorder.Recorder, written: list[Outcome]) -> status_callbacks.StatusCallbacks:
        def write(call_sid: str, outcome: Outcome, **extra: object) -> bool:
            written.append(outcome)
            return True

        hooks = status_callbacks.StatusCallbacks(
            self.row_store.store,
            cast("Any", StandIn(write_once=write)),
            Calls(),
            gateway="host",
            hang_up=lambda call_sid, reason: False,
            on_call_over=made.on_call_over,
            on_lost=lambda call_sids: None,
        )

        hooks._spawn = lambda call_sid, account_sid: None  # type: ignore[method-assign]  # a call's end is not modelled here
        return hooks

    # -- the reconcile pass ---------------------------------------------------------------------------------------------

    @asked_once
    def passed(self, row: tuple[int, int], host: str, owned: bool, looks: Looks | None, listing: tuple[str, ...] | str) -> Pass:
        """Run a reconcile pass on `host` over one row: its form and age in ms."""
        form, age_ms = row
        row_now = self.row_store.row(form)
        assert row_now is not None
        at = NOW - age_ms / 1000.0
        row_now = msgspec.structs.replace(
            row_now,
            call_sid=CALL,
            attempts=0,
            first_audio_at=None if row_now.first_audio_at is None else at,
            claimed_at=None if row_now.claimed_at is None else at,
            started_at=None if row_now.started_at is None else at,
        )
        made, written, asked = self._recorder(None), list[Outcome](), list[bool]()

        def write(call_sid: str, outcome: Outcome) -> bool:
            written.append(outcome)
            return True

        def list_recordings(call_sid: str) -> list[Listed]:
            asked.append(True)
            if isinstance(listing, tuple):
                return listed(listing)
            raise RestError(*REFUSALS[listing], "")

        made_pass = reconcile.Reconciler(
            cast(
                "Any",
                StandIn(
                    unstarted_recordings=lambda state, below: [(1, row_now)] if row_now.state == state and below is None else [],
                    started_recordings=lambda claimant, own, before, above: (
                        [(1, row_now)] if row_now.state == "started" and own and not above else []
                    ),
                    overdue_recordings=lambda claimant, before: [],
                ),
            ),
            made,
            cast("Any", StandIn(write=write)),
            _accounts(list_recordings=list_recordings),
            claimant=host,
            is_owned=lambda call_sid: owned,
        )
        if looks is not None:
            made_pass._looks[CALL] = (NOW_S + looks.in_ms / 1000.0, looks.wait_s)
        made_pass.pass_over(NOW, NOW_S)
        look = made_pass._looks.get(CALL)
        after = None if look is None else Looks(max(0, round(1000 * (look[0] - NOW_S))), look[1])
        return Pass(_lifecycle_of(made), written[0] if written else None, after, bool(asked))


class _OneAccount:
    """The account of every call. `requests`: the client's methods."""

    def __init__(self, requests: StandIn) -> None:
        breaker = CircuitBreaker(0.0)
        self._account = StandIn(sid=ACCOUNT, ask=lambda request: request(requests), breaker=breaker, hold_until_s=0.0)

    def of(self, account_sid: str) -> StandIn:
        return self._account

    def __iter__(self) -> Iterator[StandIn]:
        return iter([self._account])


def _accounts(**requests: object) -> Accounts:
    return cast("Accounts", _OneAccount(StandIn(**requests)))


def _lifecycle_of(made: recorder.Recorder) -> Lifecycle | None:
    """The recorder's lifecycle. One that it just began has this machine's time, and gets the state's."""
    job = made._jobs.get(CALL)
    if job is None:
        return None
    if NOW_S - job.lifecycle.began_s <= MOST_S:
        return job.lifecycle
    return msgspec.structs.replace(job.lifecycle, began_s=NOW_S)


def listed(recordings: tuple[str, ...]) -> list[Listed]:
    """Twilio's listing of recordings in these states, newest first."""
    entries = [
        Listed(f"RE{n}", state, OUR_SOURCE, 2, 1 if state == "completed" else -1, 0) for n, state in enumerate(recordings, 1)
    ]
    return entries[::-1]


def wait_ms_of(lifecycle: Lifecycle) -> int:
    """Milliseconds before the lifecycle's next action."""
    return round(1000 * getattr(lifecycle.action, "after_s", 0.0))


def later(lifecycle: Lifecycle, ms: int) -> Lifecycle:
    """The lifecycle `ms` later: its begin is that much earlier, at most MOST_S ago."""
    began_s = max(NOW_S - MOST_S, lifecycle.began_s - ms / 1000.0)
    if began_s == lifecycle.began_s:
        return lifecycle
    return msgspec.structs.replace(lifecycle, began_s=round(began_s, 3))


def _event(kind: str) -> bus.Event:
    match kind:
        case "record":
            return bus.StartRecording(CALL, ACCOUNT, NOW)
        case "started":
            return bus.CallStarted(CALL, "MZ", ACCOUNT, "default", "inbound", "", "", NOW, NOW)
        case "ended":
            return bus.CallEnded(CALL, NOW, "caller_hangup", "success", "", Quality())
        case "over":
            return bus.Webhook("status", NOW, {"CallSid": CALL, "CallStatus": "completed"})
    raise ValueError(kind)
