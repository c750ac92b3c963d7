"""The event files of TensorBoard that runs leave

Revision 0038, after 0040.
"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tracking_files",
        sa.Column("job_id", sa.String(length=40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("path", sa.String(length=500), nullable=False),
        sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "path", name=op.f("pk_tracking_files")),
    )
    with op.batch_alter_table("tracking_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tracking_files_project_id"), ["project_id"], unique=False)


def downgrade() -> None:
    op.drop_table("tracking_files")
