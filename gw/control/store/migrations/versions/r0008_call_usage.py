"""Adds the usage of AI models, by call, stream, day and model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_KINDS = ("text_in", "text_cached", "text_out", "audio_in", "audio_cached", "audio_out")


def upgrade() -> None:
    """Create what does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("call_usage"):
        op.create_table(
            "call_usage",
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("call_sid", sa.String(64), nullable=False),
            sa.Column("stream_sid", sa.String(64), nullable=False),
            sa.Column("day", sa.String(10), nullable=False),
            sa.Column("model", sa.String(64), nullable=False),
            *(sa.Column(kind, sa.BigInteger(), nullable=False) for kind in _KINDS),
            sa.Column("cost_usd", sa.Double()),
            sa.UniqueConstraint("call_sid", "stream_sid", "day", "model", name="uq_call_usage_key"),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
        )
    indexes = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("call_usage")}
    if "ix_call_usage_day" not in indexes:
        op.create_index("ix_call_usage_day", "call_usage", ["day", "call_sid", "cost_usd"])
