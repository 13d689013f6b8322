"""Adds lists of numbers to dial, and their lines."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0011"
down_revision = "0008"

_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_INDEXES = {
    "ix_dials_state_list_id_next_at": ["state", "list_id", "next_at"],
    "ix_dials_list_id_ended_at": ["list_id", "ended_at"],
    "ix_dials_call_sid": ["call_sid"],
}


def upgrade() -> None:
    """Create what does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("dial_lists"):
        op.create_table(
            "dial_lists",
            sa.Column("list_id", sa.String(64), primary_key=True),
            sa.Column("name", sa.String(255), nullable=False),
            sa.Column("from_number", sa.String(255), nullable=False),
            sa.Column("account", sa.String(64), nullable=False),
            sa.Column("total", sa.Integer, nullable=False),
            sa.Column("created_at", _MOMENT, nullable=False),
            **_MYSQL,
        )
    if not inspector.has_table("dials"):
        op.create_table(
            "dials",
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("list_id", sa.String(64), nullable=False),
            sa.Column("n", sa.Integer, nullable=False),
            sa.Column("to_number", sa.String(255), nullable=False),
            sa.Column("agent", sa.String(64), nullable=False),
            sa.Column("zone", sa.String(64), nullable=False),
            sa.Column("variables", sa.JSON, nullable=False),
            sa.Column("state", sa.String(16), nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("lost", sa.Integer, nullable=False),
            sa.Column("next_at", _MOMENT, nullable=False),
            sa.Column("claim", sa.String(64)),
            sa.Column("claimed_at", _MOMENT),
            sa.Column("call_sid", sa.String(64)),
            sa.Column("answered_by", sa.String(64)),
            sa.Column("result", sa.String(64)),
            sa.Column("detail", sa.String(1000)),
            sa.Column("ended_at", _MOMENT),
            sa.UniqueConstraint("list_id", "n", name="uq_dials_list_id_n"),
            **_MYSQL,
        )
    indexes = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("dials")}
    for name, columns in _INDEXES.items():
        if name not in indexes:
            op.create_index(name, "dials", columns)
