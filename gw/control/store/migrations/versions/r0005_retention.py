"""Adds leases, and columns for a recording's downloaded file and its deletion at Twilio."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"

_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_COLUMNS: dict[str, TypeEngine[Any]] = {
    "fetched_at": _MOMENT,
    "fetched_by": sa.String(255),
    "file": sa.String(1000),
    "sha256": sa.String(64),
    "deleted_at": _MOMENT,
}
_INDEXES = {
    "ix_recordings_to_fetch": ["fetched_at", "state", "deleted_at"],
    "ix_recordings_to_delete": ["deleted_at", "state", "started_at"],
}


def upgrade() -> None:
    """Create what does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("leases"):
        op.create_table(
            "leases",
            sa.Column("name", sa.String(64), primary_key=True),
            sa.Column("owner", sa.String(255), nullable=False),
            sa.Column("until", _MOMENT, nullable=False),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
        )
    columns = {column["name"] for column in inspector.get_columns("recordings")}
    for name, kind in _COLUMNS.items():
        if name not in columns:
            op.add_column("recordings", sa.Column(name, kind))
    indexes = {index["name"] for index in inspector.get_indexes("recordings")}
    for name, over in _INDEXES.items():
        if name not in indexes:
            op.create_index(name, "recordings", over)
