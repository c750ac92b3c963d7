"""Candidates: images that models drew for people to judge, and jobs that come before others

Revision 0045, after 0042. Candidates themselves are rows of `jobs`, told by their ids.
"""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0042"
branch_labels = None
depends_on = None


def _job_id() -> sa.Column[str]:
    return sa.Column("job_id", sa.String(length=40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


def _project_id() -> sa.Column[str]:
    return sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "candidate_images",
        sa.Column("id", sa.String(length=40), nullable=False),
        _job_id(),
        _project_id(),
        sa.Column("contender", sa.String(length=200), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("pixels_sha256", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("drawn_alike", sa.String(length=64), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate_images")),
        sa.UniqueConstraint(
            "job_id",
            "contender",
            "position",
            "number",
            name=op.f("uq_candidate_images_job_id_contender_position_number"),
        ),
    )
    op.create_index("ix_candidate_images_job_id_id", "candidate_images", ["job_id", "id"])
    op.create_index(
        "ix_candidate_images_project_id_drawn_alike_id", "candidate_images", ["project_id", "drawn_alike", "id"]
    )
    op.create_table(
        "candidate_recipes",
        _job_id(),
        sa.Column("contender", sa.String(length=200), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        _project_id(),
        sa.Column("recipe", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "contender", "attempt", name=op.f("pk_candidate_recipes")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("turn", sa.BigInteger(), server_default="1", nullable=False))
        batch_op.drop_index("ix_jobs_queue")
        batch_op.create_index("ix_jobs_queue", ["state", "turn", "queued_at", "id"])


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_queue")
        batch_op.create_index("ix_jobs_queue", ["state", "queued_at", "id"])
        batch_op.drop_column("turn")
    op.drop_table("candidate_recipes")
    op.drop_table("candidate_images")
