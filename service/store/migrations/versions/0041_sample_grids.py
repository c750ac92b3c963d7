"""Where each image stands in a sample picture

Revision 0041, after 0050. Pictures that are there do not say it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("samples", schema=None) as batch_op:
        batch_op.add_column(sa.Column("grid", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("samples", schema=None) as batch_op:
        batch_op.drop_column("grid")
