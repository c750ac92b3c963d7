"""What a key may, how long, and when it was last used

Revision 0022, after 0020. Keys that are there go on as they were: they may everything, and never expire.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scope", sa.String(length=8), server_default="admin", nullable=False))
        batch_op.add_column(sa.Column("rotated_from_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        for name in ("last_used_at", "expires_at", "rotated_from_id", "scope"):
            batch_op.drop_column(name)
