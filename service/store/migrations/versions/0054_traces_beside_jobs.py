"""The trace of what asked for an export, a push, the check of an upload or a delivery to a webhook

Revision 0054, after 0047. What is there has none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0054"
down_revision = "0047"
branch_labels = None
depends_on = None

TABLES = ("exports", "pushes", "datasets", "webhook_deliveries")


def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("traceparent", sa.String(length=55), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("traceparent")
