"""The queue: its order in one index, and no memory of when a bell last rang

Revision 0004, after 0003. Workers now take whatever waits longest, so a message need not be remembered.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_state_queued_at")
        batch_op.create_index("ix_jobs_queue", ["state", "queued_at", "id"], unique=False)
        batch_op.drop_column("rung_at")
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("rung_at")


def downgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.drop_index("ix_jobs_queue")
        batch_op.create_index("ix_jobs_state_queued_at", ["state", "queued_at"], unique=False)
