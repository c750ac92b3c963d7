"""Pairs of candidates that people judge, what they say of them, and where a data set that was made of it comes from

Revision 0046, after 0045.
"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def _project_id() -> sa.Column[str]:
    return sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False)


def _labeling_id() -> sa.Column[str]:
    refers_to = sa.ForeignKey("labelings.id", ondelete="CASCADE")
    return sa.Column("labeling_id", sa.String(length=40), refers_to, nullable=False)


def upgrade() -> None:
    op.create_table(
        "labelings",
        sa.Column("id", sa.String(length=40), nullable=False),
        _project_id(),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("candidates_id", sa.String(length=40), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("between", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("report_of", sa.String(length=40), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("num_pairs", sa.BigInteger(), nullable=False),
        sa.Column("num_questions", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labelings")),
    )
    op.create_index("ix_labelings_project_id_id", "labelings", ["project_id", "id"])
    op.create_index("ix_labelings_candidates_id", "labelings", ["candidates_id"])
    op.create_index("ix_labelings_report_of", "labelings", ["report_of"])
    op.create_table(
        "labeling_questions",
        _labeling_id(),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _project_id(),
        sa.Column("first_id", sa.String(length=40), nullable=False),
        sa.Column("second_id", sa.String(length=40), nullable=False),
        sa.Column("repeat_of", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("labeling_id", "number", name=op.f("pk_labeling_questions")),
    )
    op.create_table(
        "labeling_votes",
        _labeling_id(),
        sa.Column("annotator", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _project_id(),
        sa.Column("choice", sa.String(length=8), nullable=False),
        sa.Column("voted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("labeling_id", "annotator", "number", name=op.f("pk_labeling_votes")),
    )
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("provenance", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_column("provenance")
    for table in ("labeling_votes", "labeling_questions", "labelings"):
        op.drop_table(table)
