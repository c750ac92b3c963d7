"""Report pages

Revision 0002, after 0001. Reports that were made before have no page.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.add_column(sa.Column("page_size_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("page_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("page_object_key", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.drop_column("page_object_key")
        batch_op.drop_column("page_sha256")
        batch_op.drop_column("page_size_bytes")
