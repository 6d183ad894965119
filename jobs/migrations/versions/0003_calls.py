"""Calls of programs; jobs may be of low priority, and may have to start by a time."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("priority", sa.String(10), nullable=False, server_default="normal")
    )
    op.add_column("jobs", sa.Column("start_by", sa.Float(53)))
    op.create_table(
        "calls",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("endpoint", sa.String(100), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("has_job", sa.Boolean, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("webhook", sa.Text),
        sa.Column("sync_mode", sa.Boolean, nullable=False),
        sa.Column("cdn", sa.Text, nullable=False),
        sa.Column("log", sa.Text),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_try_at", sa.Float(53)),
    )
    op.create_index("ix_calls_next_try_at", "calls", ["next_try_at"])
