"""What evaluations come to: their reports, where their scores are, and what they have drawn so far

Revision 0034, after 0033. Evaluations themselves are rows of `jobs`, told by their ids.
"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def _job_id() -> sa.Column[str]:
    return sa.Column("job_id", sa.String(length=40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


def _project_id() -> sa.Column[str]:
    return sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "proofs",
        _job_id(),
        _project_id(),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("scores_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("scores_sha256", sa.String(length=64), nullable=True),
        sa.Column("scores_object_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_proofs")),
    )
    op.create_table(
        "proof_shards",
        _job_id(),
        sa.Column("path", sa.String(length=500), nullable=False),
        _project_id(),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "path", name=op.f("pk_proof_shards")),
    )


def downgrade() -> None:
    op.drop_table("proof_shards")
    op.drop_table("proofs")
