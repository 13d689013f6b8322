"""One file per revision, run by Alembic."""
