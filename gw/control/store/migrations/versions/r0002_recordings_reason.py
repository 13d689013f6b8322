"""Adds `recordings.reason`, and moves the code at the front of `error_text` into it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: Codes at the front of `error_text`, before a colon. Any other text is Twilio's.
_WORDS = (
    "absent",
    "busy",
    "call_ended",
    "gone",
    "no_credentials",
    "not_in_progress",
    "rejected",
    "server",
    "timeout",
    "unauthorized",
    "unreachable",
)


def upgrade() -> None:
    """Add the column unless it exists, then move the codes."""
    bind = op.get_bind()
    if "reason" not in {column["name"] for column in sa.inspect(bind).get_columns("recordings")}:
        op.add_column("recordings", sa.Column("reason", sa.String(64)))
    recordings = sa.table("recordings", sa.column("reason"), sa.column("error_text"))
    for word in _WORDS:
        unmoved = recordings.update().where(recordings.c.reason.is_(None))
        bind.execute(unmoved.where(recordings.c.error_text == word).values(reason=word, error_text=""))
        opened = unmoved.where(recordings.c.error_text.startswith(f"{word}: ", autoescape=True))
        bind.execute(opened.values(reason=word, error_text=sa.func.substr(recordings.c.error_text, len(word) + 3)))
