"""What an upload is: preference data, or weights to start from

Revision 0013, after 0011. Everything that was uploaded before is data.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=8), server_default="data", nullable=False))


def downgrade() -> None:
    op.execute("DELETE FROM datasets WHERE kind <> 'data'")  # what came before would take them for preference data
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("kind")
