"""What a call asked for is in its job's plan; a second copy of people's words is not kept."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("calls", "body")
