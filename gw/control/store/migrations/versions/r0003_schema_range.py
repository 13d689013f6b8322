"""Adds `schema_range`: one row with the oldest revision whose code can use the schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ENCODED = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Create the table and its row, unless they exist."""
    op.create_table("schema_range", sa.Column("oldest", sa.String(64), primary_key=True), if_not_exists=True, **_ENCODED)
    bind = op.get_bind()
    table = sa.table("schema_range", sa.column("oldest"))
    if bind.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0:
        bind.execute(table.insert().values(oldest="0002"))
