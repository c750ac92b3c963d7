"""How long checkpoints stay, and which are pinned

Revision 0030, after 0029. Nothing goes until somebody says so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def _policy() -> list[sa.Column[object]]:
    return [
        sa.Column("keep_last", sa.BigInteger(), nullable=True),
        sa.Column("keep_best", sa.Boolean(), nullable=False),
        sa.Column("ttl_days", sa.Float(), nullable=True),
    ]


def upgrade() -> None:
    op.create_table(
        "project_retention",
        sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False),
        *_policy(),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_project_retention")),
    )
    op.create_table(
        "job_retention",
        sa.Column("job_id", sa.String(length=40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        *_policy(),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_retention")),
    )
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("is_pinned", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.drop_column("is_pinned")
    op.drop_table("job_retention")
    op.drop_table("project_retention")
