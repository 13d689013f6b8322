"""Creates the tables for calls, turns, recordings, quality and events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_ENCODED = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def _moment() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _call_sid() -> sa.Column[str]:
    return sa.Column("call_sid", sa.String(64), nullable=False)


def _index(table: str, *columns: str) -> None:
    """Create an index unless it exists: MySQL has no CREATE INDEX IF NOT EXISTS."""
    name = f"ix_{table}_{'_'.join(columns)}"
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns))


def upgrade() -> None:
    """Create the tables. IF NOT EXISTS lets an interrupted run start again."""
    op.create_table(
        "calls",
        _id(),
        _call_sid(),
        sa.Column("stream_sid", sa.String(64)),
        sa.Column("account_sid", sa.String(64)),
        sa.Column("agent", sa.String(64)),
        sa.Column("direction", sa.String(64)),
        sa.Column("from_number", sa.String(255)),
        sa.Column("to_number", sa.String(255)),
        sa.Column("started_at", _moment()),
        sa.Column("answered_at", _moment()),
        sa.Column("first_audio_at", _moment()),
        sa.Column("ended_at", _moment()),
        sa.Column("reason", sa.String(64)),
        sa.Column("result", sa.String(64)),
        sa.Column("detail", sa.String(1000)),
        sa.Column("host", sa.String(255)),
        sa.Column("worker", sa.Integer),
        sa.Column("instance", sa.String(64)),
        sa.UniqueConstraint("call_sid", name="uq_calls_call_sid"),
        if_not_exists=True,
        **_ENCODED,
    )
    _index("calls", "started_at")
    _index("calls", "ended_at")
    op.create_table(
        "turns",
        _id(),
        _call_sid(),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("item_id", sa.String(255)),
        sa.Column("start_ms", sa.Integer, nullable=False),
        sa.Column("interrupted", sa.Boolean, nullable=False),
        sa.Column("heard_ms", sa.Integer),
        sa.UniqueConstraint("call_sid", "n", name="uq_turns_call_sid_n"),
        if_not_exists=True,
        **_ENCODED,
    )
    op.create_table(
        "recordings",
        _id(),
        _call_sid(),
        sa.Column("account_sid", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("first_audio_at", _moment()),
        sa.Column("claimed_at", _moment()),
        sa.Column("started_at", _moment()),
        sa.Column("recording_sid", sa.String(64)),
        sa.Column("trigger_ms", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer),
        sa.Column("duration_s", sa.Integer),
        sa.Column("url", sa.String(1000)),
        sa.Column("error_code", sa.Integer),
        sa.Column("error_text", sa.String(1000)),
        sa.UniqueConstraint("call_sid", name="uq_recordings_call_sid"),
        if_not_exists=True,
        **_ENCODED,
    )
    _index("recordings", "state")
    op.create_table(
        "call_quality",
        _id(),
        _call_sid(),
        sa.Column("frames_sent", sa.BigInteger),
        sa.Column("frames_expected", sa.BigInteger),
        sa.Column("send_p50_s", sa.Double),
        sa.Column("send_p99_s", sa.Double),
        sa.Column("send_p999_s", sa.Double),
        sa.Column("send_max_s", sa.Double),
        sa.Column("lateness_p50_s", sa.Double),
        sa.Column("lateness_p99_s", sa.Double),
        sa.Column("lateness_p999_s", sa.Double),
        sa.Column("lateness_max_s", sa.Double),
        sa.Column("underrun_ms", sa.BigInteger),
        sa.Column("dropped_frames", sa.JSON),
        sa.Column("uplink_dropped_frames", sa.JSON),
        sa.Column("bargeins", sa.BigInteger),
        sa.Column("first_audio_ms", sa.BigInteger),
        sa.Column("ai_first_audio_ms", sa.BigInteger),
        sa.Column("hub_hold_max_s", sa.Double),
        sa.UniqueConstraint("call_sid", name="uq_call_quality_call_sid"),
        if_not_exists=True,
        **_ENCODED,
    )
    op.create_table(
        "events",
        _id(),
        sa.Column("call_sid", sa.String(64)),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("at", _moment(), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("worker", sa.Integer),
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("instance", "n", name="uq_events_instance_n"),
        if_not_exists=True,
        **_ENCODED,
    )
    _index("events", "call_sid")
    _index("events", "at")
