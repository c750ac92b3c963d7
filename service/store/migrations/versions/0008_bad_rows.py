"""What a bad row of a dataset does

Revision 0008, after 0007. Datasets that were uploaded before fail with a bad row, as they did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("on_bad_row", sa.String(length=8), server_default="fail", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("on_bad_row")
