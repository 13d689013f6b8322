"""Rows of the store as values: what `gw.control.store` reads, the admin socket sends and the commands show.

The fields are the columns of `gw.control.store.tables` in the same order, without `id`; a test compares the two. Times are epoch
seconds. A nullable column defaults to None, so that a command can decode the answer of a gateway that lacks a newer column.
Imports no database library: a command that asks a running gateway starts without SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from gw.call.cost.usage import Used

#: A value of an event's `data`.
Scalar = str | int | float | bool | None
#: The kind of an event that is an operator's act.
OPERATOR: Final = "operator"
#: The kinds of events about pauses of a recording. `by` of their data: operator | digits.
RECORDING_PAUSED: Final = "recording_paused"
RECORDING_RESUMED: Final = "recording_resumed"
#: The kind of an event about a caller whom an operator transferred: there is no way back to the agent.
TRANSFERRED: Final = "transferred"
#: The same for a call that an operator ended by Twilio, as no worker here has it.
HUNG_UP: Final = "hung_up"
#: States of a recording, in the order a row moves, forward only. `failed` is early: a failed recording may turn out to exist.
RowState = Literal["wanted", "claimed", "failed", "started", "absent", "completed"]


class GatewayRow(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway of a store. Times are by the clock of the database."""

    gateway: str
    machine: str
    version: str
    fingerprint: str
    started_at: float
    heartbeat_at: float
    stopped_at: float | None = None
    ready: bool
    drained: bool
    calls: int
    capacity: int
    drain_asked: bool | None = None  # by an operator at another gateway


class ListedGateway(GatewayRow, frozen=True, kw_only=True):
    """A gateway in a list. `state`: live | silent | gone | stopped."""

    state: str
    heartbeat_age_s: float


#: States of a line of a list. waiting: for its next dial. claimed: Twilio may have the request. placed: Twilio has the call.
#: done: no further dial. unknown: Twilio's answer was lost, and Twilio lists no such call.
DialState = Literal["waiting", "claimed", "placed", "done", "unknown"]


class DialListRow(msgspec.Struct, frozen=True, kw_only=True):
    """One list of numbers to dial."""

    list_id: str
    name: str
    from_number: str
    account: str
    total: int
    created_at: float


class DialRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list."""

    list_id: str
    n: int
    to_number: str
    agent: str
    zone: str
    variables: dict[str, str]
    state: DialState
    attempts: int
    lost: int = 0
    next_at: float
    claim: str | None = None
    claimed_at: float | None = None
    call_sid: str | None = None
    answered_by: str | None = None
    result: str | None = None
    detail: str | None = None
    ended_at: float | None = None


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call."""

    call_sid: str
    stream_sid: str | None = None
    account_sid: str | None = None
    agent: str | None = None
    direction: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    started_at: float | None = None
    answered_at: float | None = None
    first_audio_at: float | None = None
    ended_at: float | None = None
    reason: str | None = None
    result: str | None = None
    detail: str | None = None
    host: str | None = None
    gateway: str | None = None
    worker: int | None = None
    instance: str | None = None

    @property
    def began_at(self) -> float | None:
        """Time of the answer, or of Twilio's webhook if there was no answer."""
        return self.answered_at or self.started_at

    @property
    def length_s(self) -> float | None:
        """Length of the call; None while it is alive."""
        return self.ended_at - self.began_at if self.ended_at and self.began_at else None


class CallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a call, if it has one, and the row's gateway."""

    call_sid: str
    account_sid: str | None = None
    ended_at: float | None = None
    gateway: str | None = None


class ListedCall(CallRow, frozen=True, kw_only=True):
    """A call in a list, with the state of its recording."""

    recording_state: str | None = None
    underrun_ms: int | None = None
    lateness_p999_s: float | None = None
    cost_usd: float | None = None  # None without a price


class CallFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions on the calls of a list; None for those without."""

    since: float | None = None  # epoch time
    agent: str | None = None
    number: str | None = None  # of either side
    machine: str | None = None
    reason: str | None = None
    worst: bool = False  # by gaps in the audio, instead of the newest


class CallDetails(CallRow, frozen=True, kw_only=True):
    """A call with everything stored about it."""

    quality: QualityRow | None = None
    recording: RecordingRow | None = None
    turns: list[TurnRow] = []
    events: list[EventRow] = []
    usage: dict[str, int] = {}  # tokens of all models, by kind
    cost_usd: float | None = None  # None without a price
    used: list[UsageRow] = []

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the call's route."""
        data = next((event.data for event in self.events if event.kind == "variables"), {})
        return {name: str(value) for name, value in data.items()}


class UsageRow(Used, frozen=True, kw_only=True):
    """Usage of one model by one stream of a call on one day."""

    call_sid: str
    stream_sid: str


class TurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """One side's words in a call."""

    call_sid: str
    n: int
    role: str  # caller | agent
    text: str
    item_id: str | None = None
    start_ms: int  # since the stream started
    interrupted: bool
    heard_ms: int | None = None


class RecordingRow(msgspec.Struct, frozen=True, kw_only=True):
    """The recording of one call."""

    call_sid: str
    account_sid: str | None = None
    state: RowState
    owner: str | None = None  # the claimant
    first_audio_at: float | None = None
    claimed_at: float | None = None
    started_at: float | None = None
    recording_sid: str | None = None
    trigger_ms: int | None = None  # from the first audio to the claim's REST request
    attempts: int
    channels: int | None = None
    duration_s: int | None = None
    url: str | None = None
    error_code: int | None = None  # Twilio's number
    error_text: str | None = None
    reason: str | None = None  # our code: why it failed, or its problem
    fetched_at: float | None = None
    fetched_by: str | None = None  # the machine with the file
    file: str | None = None
    sha256: str | None = None
    deleted_at: float | None = None  # at Twilio


class QualityRow(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of one call; None for those not made. See `gw.call.quality.Quality`."""

    frames_sent: int | None = None
    frames_expected: int | None = None
    send_p50_s: float | None = None
    send_p99_s: float | None = None
    send_p999_s: float | None = None
    send_max_s: float | None = None
    lateness_p50_s: float | None = None
    lateness_p99_s: float | None = None
    lateness_p999_s: float | None = None
    lateness_max_s: float | None = None
    underrun_ms: int | None = None
    dropped_frames: dict[str, int] | None = None
    uplink_dropped_frames: dict[str, int] | None = None
    bargeins: int | None = None
    first_audio_ms: int | None = None
    ai_first_audio_ms: int | None = None
    hub_hold_max_s: float | None = None


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a call, or of none."""

    call_sid: str | None = None
    kind: str
    at: float
    data: dict[str, Scalar]
    host: str | None = None
    gateway: str | None = None
    worker: int | None = None
    instance: str
    n: int


def paused_by(events: Sequence[EventRow]) -> tuple[str, ...]:
    """Return the parties for which a call's recording is paused: operator, digits."""
    state = {str(event.data.get("by")): event.kind for event in events if event.kind in (RECORDING_PAUSED, RECORDING_RESUMED)}
    return tuple(by for by, kind in state.items() if kind == RECORDING_PAUSED)


def hold_of(kind: str, data: Mapping[str, Scalar]) -> bool | None:
    """Return whether an operator's act pauses a recording; None: another event."""
    is_act = kind in (RECORDING_PAUSED, RECORDING_RESUMED) and data.get("by") == "operator"
    return kind == RECORDING_PAUSED if is_act else None


def is_held(events: Sequence[EventRow]) -> bool:
    """Return whether an operator has paused a call's recording."""
    acts = [hold for event in events if (hold := hold_of(event.kind, event.data)) is not None]
    return bool(acts) and acts[-1]
