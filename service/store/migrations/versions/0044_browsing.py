"""Where the thumbnails and rows of a checked data set lie, for people to browse, and how many bytes they are

Revision 0044, after 0053. What was checked before has none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0053"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("browsing_key", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("browsing_bytes", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("browsing_bytes")
        batch_op.drop_column("browsing_key")
