"""The clock that SQLite's leases are counted by

Revision 0006, after 0005. Empty until the first lease; leases from before count as ended then, as nothing runs while tables change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "host_clocks",
        sa.Column("boot_id", sa.String(length=40), nullable=False),
        sa.Column("zero_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("boot_id", name=op.f("pk_host_clocks")),
    )


def downgrade() -> None:
    op.drop_table("host_clocks")
