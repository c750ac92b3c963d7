"""The trace of the request that queued a job, or the sweep of a trial

Revision 0042, after 0038_2. What is there has none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0038_2"
branch_labels = None
depends_on = None

TABLES = ("jobs", "sweep_trials")


def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("traceparent", sa.String(length=55), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("traceparent")
