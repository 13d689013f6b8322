"""Adds indexes for the reconcile pass: unsettled recordings of one gateway, and by age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INDEXES = {
    "ix_recordings_state_owner": ["state", "owner", "started_at"],
    "ix_recordings_state_started_at": ["state", "started_at"],
}


def upgrade() -> None:
    """Create the indexes unless they exist."""
    existing = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("recordings")}
    for name, columns in _INDEXES.items():
        if name not in existing:
            op.create_index(name, "recordings", columns)
