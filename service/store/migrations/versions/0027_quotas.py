"""What a project may take, and what is counted for it

Revision 0027, after 0026. Time is counted from now on: what was trained before is not known by the attempt. The files of exports say
how large they are.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

INDEXED = ("checkpoints", "exports", "samples")


def _project_id() -> sa.Column[str]:
    return sa.Column("project_id", sa.String(length=40), sa.ForeignKey("projects.id"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "quotas",
        _project_id(),
        sa.Column("jobs", sa.BigInteger(), nullable=True),
        sa.Column("submits", sa.BigInteger(), nullable=True),
        sa.Column("gpu_hours", sa.Float(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_quotas")),
    )
    op.create_table(
        "submit_counts",
        _project_id(),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "hour", name=op.f("pk_submit_counts")),
    )
    op.create_table(
        "process_time",
        _project_id(),
        sa.Column("month", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "month", name=op.f("pk_process_time")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempt_started_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("encoded_bytes", sa.BigInteger(), server_default="0", nullable=False))
    with op.batch_alter_table("exports", schema=None) as batch_op:
        batch_op.add_column(sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False))
    for table in INDEXED:
        op.create_index(op.f(f"ix_{table}_project_id"), table, ["project_id"])
    _measure_exports()


def _measure_exports() -> None:
    exports = sa.table("exports", sa.column("id"), sa.column("files", sa.JSON()), sa.column("size_bytes"))
    for export_id, files in op.get_bind().execute(sa.select(exports.c.id, exports.c.files)).all():
        found = json.loads(files) if isinstance(files, str) else files
        size = sum(file["size_bytes"] for file in found)
        op.execute(sa.update(exports).where(exports.c.id == export_id).values(size_bytes=size))


def downgrade() -> None:
    for table in INDEXED:
        op.drop_index(op.f(f"ix_{table}_project_id"), table)
    for table, column in (("exports", "size_bytes"), ("datasets", "encoded_bytes"), ("jobs", "attempt_started_at")):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column(column)
    for table in ("process_time", "submit_counts", "quotas"):
        op.drop_table(table)
