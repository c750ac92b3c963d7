"""Why nothing can be made of an upload

Revision 0055, after 0049. What was refused before is refused once more when it is finished.
"""

import sqlalchemy as sa
from alembic import op

revision = "0055"
down_revision = "0049"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("refusal", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM uploads WHERE state = 'refused'")  # nothing is left of them but the word
    with op.batch_alter_table("uploads", schema=None) as batch_op:
        batch_op.drop_column("refusal")
