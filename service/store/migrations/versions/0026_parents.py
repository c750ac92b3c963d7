"""What a job was forked from

Revision 0026. Jobs that began from a checkpoint of another are its forks, as far as the checkpoint is still there.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

FORKED = """
UPDATE jobs SET
  parent_checkpoint_id = resume_from_checkpoint_id,
  fork_mode = 'resume',
  parent_job_id = (SELECT job_id FROM checkpoints WHERE checkpoints.id = jobs.resume_from_checkpoint_id),
  parent_step = (SELECT step FROM checkpoints WHERE checkpoints.id = jobs.resume_from_checkpoint_id)
WHERE resume_from_checkpoint_id IN (SELECT id FROM checkpoints)
"""


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parent_job_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("parent_checkpoint_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("parent_step", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("fork_mode", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("fork_reference", sa.String(length=16), nullable=True))
        batch_op.create_index("ix_jobs_parent_job_id_id", ["parent_job_id", "id"])
    op.execute(FORKED)


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_parent_job_id_id")
        for name in ("fork_reference", "fork_mode", "parent_step", "parent_checkpoint_id", "parent_job_id"):
            batch_op.drop_column(name)
