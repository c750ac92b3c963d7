"""What attempts took, by phase

Revision 0033, after 0032. Of attempts that have ended before nothing is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempt_usage",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("processes", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(length=8), nullable=True),
        sa.Column("seconds", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("peak_device_gib", sa.Float(), nullable=True),
        sa.Column("peak_host_gib", sa.Float(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempt_usage_job_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_attempt_usage_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt_usage")),
    )
    op.create_index("ix_attempt_usage_project_id_ended_at", "attempt_usage", ["project_id", "ended_at"])
    op.create_index(op.f("ix_attempt_usage_job_id"), "attempt_usage", ["job_id"])


def downgrade() -> None:
    op.drop_table("attempt_usage")
