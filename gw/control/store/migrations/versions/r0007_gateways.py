"""Adds the gateways of a store, and the gateway of each call and event."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"

_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def upgrade() -> None:
    """Create what does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("gateways"):
        op.create_table(
            "gateways",
            sa.Column("gateway", sa.String(64), primary_key=True),
            sa.Column("machine", sa.String(255), nullable=False),
            sa.Column("version", sa.String(64), nullable=False),
            sa.Column("fingerprint", sa.String(255), nullable=False),
            sa.Column("started_at", _MOMENT, nullable=False),
            sa.Column("heartbeat_at", _MOMENT, nullable=False),
            sa.Column("stopped_at", _MOMENT),
            sa.Column("ready", sa.Boolean, nullable=False),
            sa.Column("drained", sa.Boolean, nullable=False),
            sa.Column("calls", sa.Integer, nullable=False),
            sa.Column("capacity", sa.Integer, nullable=False),
            sa.Column("drain_asked", sa.Boolean),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
        )
    for table in ("calls", "events"):
        if "gateway" not in {column["name"] for column in inspector.get_columns(table)}:
            op.add_column(table, sa.Column("gateway", sa.String(64)))
