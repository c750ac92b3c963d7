"""An index of the events that are not steps: of a long run nearly all are, and few are looked for by their type

Revision 0047, after 0046.
"""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

NAME = "ix_events_beside_steps"
WHERE = sa.text("type != 'step_completed'")


def upgrade() -> None:
    op.create_index(NAME, "events", ["job_id", "seq"], sqlite_where=WHERE, postgresql_where=WHERE)


def downgrade() -> None:
    op.drop_index(NAME, "events", sqlite_where=WHERE, postgresql_where=WHERE)
