"""The workers' cards, how fast jobs were on them, and what a job was estimated to cost

Revision 0020, after 0021. Workers say their cards again when they start, and measure again; nothing is lost with the tables.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cards",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("device", sa.String(length=8), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cards")),
    )
    op.create_table(
        "rates",
        sa.Column("card", sa.String(length=200), nullable=False),
        sa.Column("family", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("low", sa.Float(), nullable=False),
        sa.Column("expected", sa.Float(), nullable=False),
        sa.Column("high", sa.Float(), nullable=False),
        sa.Column("num_jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("card", "family", "phase", name=op.f("pk_rates")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("estimate", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("estimate")
    op.drop_table("rates")
    op.drop_table("cards")
