"""The store's tables as this version needs them. `migrations` upgrades a database to them; a test compares the two.

Times are DATETIME(6) in UTC: a manual query can read, sort and group them by day. In Python they are epoch seconds, converted by
`Moment`. Text is utf8mb4 and compared by bytes, so that MySQL and SQLite agree on equality. Unique keys allow one row per call
SID.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

#: Twilio's SIDs have 34 characters. Also for our own names: agent, reason, instance.
SID_CHARS: Final = 64
#: An E.164 number has 16 characters; a SIP address may replace it.
NUMBER_CHARS: Final = 255
DETAIL_CHARS: Final = 1000
#: TEXT holds 65,535 bytes; a character has up to four.
TEXT_CHARS: Final = 16_000
URL_CHARS: Final = 1000
#: A day as text.
DAY_CHARS: Final = 10


class Moment(TypeDecorator[float]):
    """Epoch seconds in Python, DATETIME(6) in UTC in the database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    def process_bind_param(self, value: float | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> float | None:
        return None if value is None else value.replace(tzinfo=UTC).timestamp()


metadata = MetaData()
_MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def _id() -> Column[int]:
    return Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _call_sid() -> Column[str]:
    return Column("call_sid", String(SID_CHARS), nullable=False)


schema_range = Table(
    "schema_range",
    metadata,
    Column("oldest", String(SID_CHARS), primary_key=True),  # revision whose code can use this schema; one row
    **_MYSQL,
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(SID_CHARS), primary_key=True),  # work of a single gateway
    Column("owner", String(NUMBER_CHARS), nullable=False),
    Column("until", Moment(), nullable=False),
    **_MYSQL,
)

gateways = Table(
    "gateways",
    metadata,
    Column("gateway", String(SID_CHARS), primary_key=True),
    Column("machine", String(NUMBER_CHARS), nullable=False),
    Column("version", String(SID_CHARS), nullable=False),
    Column("fingerprint", String(NUMBER_CHARS), nullable=False),  # of the holder: a copied var_dir has another one
    Column("started_at", Moment(), nullable=False),
    Column("heartbeat_at", Moment(), nullable=False),  # by the clock of the database, as the others
    Column("stopped_at", Moment()),
    Column("ready", Boolean, nullable=False),
    Column("drained", Boolean, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("drain_asked", Boolean),  # by an operator at another gateway; NULL once done
    **_MYSQL,
)

calls = Table(
    "calls",
    metadata,
    _id(),
    _call_sid(),
    Column("stream_sid", String(SID_CHARS)),
    Column("account_sid", String(SID_CHARS)),
    Column("agent", String(SID_CHARS)),
    Column("direction", String(SID_CHARS)),
    Column("from_number", String(NUMBER_CHARS)),
    Column("to_number", String(NUMBER_CHARS)),
    Column("started_at", Moment()),
    Column("answered_at", Moment()),
    Column("first_audio_at", Moment()),
    Column("ended_at", Moment()),
    Column("reason", String(SID_CHARS)),
    Column("result", String(SID_CHARS)),
    Column("detail", String(DETAIL_CHARS)),
    Column("host", String(NUMBER_CHARS)),
    Column("gateway", String(SID_CHARS)),
    Column("worker", Integer),
    Column("instance", String(SID_CHARS)),
    UniqueConstraint("call_sid", name="uq_calls_call_sid"),
    Index("ix_calls_started_at", "started_at"),
    Index("ix_calls_ended_at", "ended_at"),  # open calls have none
    **_MYSQL,
)

turns = Table(
    "turns",
    metadata,
    _id(),
    _call_sid(),
    Column("n", Integer, nullable=False),
    Column("role", String(SID_CHARS), nullable=False),
    Column("text", Text, nullable=False),
    Column("item_id", String(NUMBER_CHARS)),
    Column("start_ms", Integer, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("heard_ms", Integer),
    UniqueConstraint("call_sid", "n", name="uq_turns_call_sid_n"),
    **_MYSQL,
)

recordings = Table(
    "recordings",
    metadata,
    _id(),
    _call_sid(),
    Column("account_sid", String(SID_CHARS)),
    Column("state", String(16), nullable=False),
    Column("owner", String(NUMBER_CHARS)),  # the claimant
    Column("first_audio_at", Moment()),
    Column("claimed_at", Moment()),
    Column("started_at", Moment()),
    Column("recording_sid", String(SID_CHARS)),
    Column("trigger_ms", Integer),  # from the first audio to the claim's REST request
    Column("attempts", Integer, nullable=False),
    Column("channels", Integer),
    Column("duration_s", Integer),
    Column("url", String(URL_CHARS)),
    Column("error_code", Integer),  # Twilio's number
    Column("error_text", String(DETAIL_CHARS)),
    UniqueConstraint("call_sid", name="uq_recordings_call_sid"),
    Column("reason", String(SID_CHARS)),  # our code: why it failed, or its problem
    Column("fetched_at", Moment()),  # its own file is complete
    Column("fetched_by", String(NUMBER_CHARS)),  # the machine with the file
    Column("file", String(URL_CHARS)),
    Column("sha256", String(SID_CHARS)),
    Column("deleted_at", Moment()),  # Twilio has it no more
    Index("ix_recordings_to_fetch", "fetched_at", "state", "deleted_at"),
    Index("ix_recordings_to_delete", "deleted_at", "state", "started_at"),
    Index("ix_recordings_state", "state"),
    Index("ix_recordings_state_owner", "state", "owner", "started_at"),
    Index("ix_recordings_state_started_at", "state", "started_at"),
    **_MYSQL,
)

call_quality = Table(
    "call_quality",
    metadata,
    _id(),
    _call_sid(),
    Column("frames_sent", BigInteger),
    Column("frames_expected", BigInteger),
    Column("send_p50_s", Double),
    Column("send_p99_s", Double),
    Column("send_p999_s", Double),
    Column("send_max_s", Double),
    Column("lateness_p50_s", Double),
    Column("lateness_p99_s", Double),
    Column("lateness_p999_s", Double),
    Column("lateness_max_s", Double),
    Column("underrun_ms", BigInteger),
    Column("dropped_frames", JSON(none_as_null=True)),
    Column("uplink_dropped_frames", JSON(none_as_null=True)),
    Column("bargeins", BigInteger),
    Column("first_audio_ms", BigInteger),
    Column("ai_first_audio_ms", BigInteger),
    Column("hub_hold_max_s", Double),
    UniqueConstraint("call_sid", name="uq_call_quality_call_sid"),
    **_MYSQL,
)

call_usage = Table(
    "call_usage",
    metadata,
    _id(),
    _call_sid(),
    Column("stream_sid", String(SID_CHARS), nullable=False),
    Column("day", String(DAY_CHARS), nullable=False),  # UTC, such as 2026-11-28
    Column("model", String(SID_CHARS), nullable=False),
    Column("text_in", BigInteger, nullable=False),  # tokens; *_in without the cached ones
    Column("text_cached", BigInteger, nullable=False),
    Column("text_out", BigInteger, nullable=False),
    Column("audio_in", BigInteger, nullable=False),
    Column("audio_cached", BigInteger, nullable=False),
    Column("audio_out", BigInteger, nullable=False),
    Column("cost_usd", Double),
    UniqueConstraint("call_sid", "stream_sid", "day", "model", name="uq_call_usage_key"),
    Index("ix_call_usage_day", "day", "call_sid", "cost_usd"),  # the sum of a day, without its rows
    **_MYSQL,
)

dial_lists = Table(
    "dial_lists",
    metadata,
    Column("list_id", String(SID_CHARS), primary_key=True),  # of the file's name and content
    Column("name", String(NUMBER_CHARS), nullable=False),
    Column("from_number", String(NUMBER_CHARS), nullable=False),
    Column("account", String(SID_CHARS), nullable=False),  # a name of the configuration; empty: the main one
    Column("total", Integer, nullable=False),
    Column("created_at", Moment(), nullable=False),
    **_MYSQL,
)

dials = Table(
    "dials",
    metadata,
    _id(),
    Column("list_id", String(SID_CHARS), nullable=False),
    Column("n", Integer, nullable=False),  # line of the file
    Column("to_number", String(NUMBER_CHARS), nullable=False),
    Column("agent", String(SID_CHARS), nullable=False),
    Column("zone", String(SID_CHARS), nullable=False),
    Column("variables", JSON(none_as_null=True), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # dials claimed so far
    Column("lost", Integer, nullable=False),  # of these, dials whose request Twilio did not get
    Column("next_at", Moment(), nullable=False),  # not before
    Column("claim", String(SID_CHARS)),  # the job of the latest dial
    Column("claimed_at", Moment()),
    Column("call_sid", String(SID_CHARS)),  # of the latest dial
    Column("answered_by", String(SID_CHARS)),  # by Twilio's detection
    Column("result", String(SID_CHARS)),  # of the latest dial
    Column("detail", String(DETAIL_CHARS)),
    Column("ended_at", Moment()),
    UniqueConstraint("list_id", "n", name="uq_dials_list_id_n"),
    Index("ix_dials_state_list_id_next_at", "state", "list_id", "next_at"),
    Index("ix_dials_list_id_ended_at", "list_id", "ended_at"),
    Index("ix_dials_call_sid", "call_sid"),
    **_MYSQL,
)

events = Table(
    "events",
    metadata,
    _id(),
    Column("call_sid", String(SID_CHARS)),  # NULL for an event of no call
    Column("kind", String(SID_CHARS), nullable=False),
    Column("at", Moment(), nullable=False),
    Column("data", JSON(none_as_null=True), nullable=False),
    Column("host", String(NUMBER_CHARS)),
    Column("gateway", String(SID_CHARS)),
    Column("worker", Integer),
    Column("instance", String(SID_CHARS), nullable=False),
    Column("n", BigInteger, nullable=False),
    UniqueConstraint("instance", "n", name="uq_events_instance_n"),
    Index("ix_events_call_sid", "call_sid"),
    Index("ix_events_at", "at"),
    Index("ix_events_kind_at", "kind", "at"),  # the few acts of operators among all
    **_MYSQL,
)
