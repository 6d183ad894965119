"""Each image may have a plan of its own: what the engine added to the job's while it painted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("plan", sa.Text))
