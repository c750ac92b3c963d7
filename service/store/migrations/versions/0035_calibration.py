"""How long attempts took over what was expected of them

Revision 0035, after 0034.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("attempt_usage", schema=None) as batch_op:
        batch_op.add_column(sa.Column("shape", sa.String(length=300), nullable=True))
        batch_op.add_column(sa.Column("over_estimate", sa.Float(), nullable=True))
        batch_op.create_index("ix_attempt_usage_shape_ended_at", ["shape", "ended_at"])


def downgrade() -> None:
    with op.batch_alter_table("attempt_usage", schema=None) as batch_op:
        batch_op.drop_index("ix_attempt_usage_shape_ended_at")
        batch_op.drop_column("over_estimate")
        batch_op.drop_column("shape")
