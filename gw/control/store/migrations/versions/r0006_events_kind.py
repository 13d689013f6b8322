"""Adds an index that finds the few events of one kind: the acts of operators."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_INDEX = "ix_events_kind_at"


def upgrade() -> None:
    """Create what does not exist."""
    if _INDEX not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("events")}:
        op.create_index(_INDEX, "events", ["kind", "at"])
