"""The extremes of every 64 steps, from which long curves are drawn

Revision 0050, after 0054.
"""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0054"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metric_blocks",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("extremes", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metric_blocks_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_metric_blocks_project_id")),
        sa.PrimaryKeyConstraint("job_id", "split", "block", name=op.f("pk_metric_blocks")),
    )


def downgrade() -> None:
    op.drop_table("metric_blocks")
