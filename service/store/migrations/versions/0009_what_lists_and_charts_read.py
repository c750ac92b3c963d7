"""What lists and charts read without reading everything

Revision 0009, after 0008. Metadata gets a table with an index, filters get indexes, jobs keep the names of their metrics,
and files of checkpoints the checksum that archives need (it is computed when an older file is first asked for).
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# No filter is longer than 500 characters, and PostgreSQL's index takes 2,700 bytes in all.
SHORTEN = "UPDATE jobs SET model = substr(model, 1, 500) WHERE length(model) > 500"

# How each database takes JSON apart.
LABELS = {
    "sqlite": "INSERT INTO job_labels (job_id, project_id, key, value) "
    "SELECT jobs.id, jobs.project_id, label.key, label.value FROM jobs, json_each(metadata) AS label",
    "postgresql": "INSERT INTO job_labels (job_id, project_id, key, value) "
    "SELECT jobs.id, jobs.project_id, label.key, label.value FROM jobs, json_each_text(metadata) AS label",
}
METRIC_NAMES = {
    "sqlite": "UPDATE jobs SET metric_names = (SELECT json_group_array(name) FROM (SELECT DISTINCT "
    "CASE split WHEN 'train' THEN '' ELSE split || '/' END || key AS name "
    "FROM metrics, json_each(figures) WHERE job_id = jobs.id ORDER BY name))",
    "postgresql": "UPDATE jobs SET metric_names = (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM (SELECT DISTINCT "
    "CASE split WHEN 'train' THEN '' ELSE split || '/' END || key AS name "
    "FROM metrics, json_object_keys(figures) AS key WHERE job_id = jobs.id) AS names)",
}


def upgrade() -> None:
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_labels_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_job_labels_project_id")),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_labels")),
    )
    op.add_column("jobs", sa.Column("metric_names", sa.JSON(none_as_null=True), nullable=False, server_default="[]"))
    op.add_column("checkpoint_files", sa.Column("crc32", sa.BigInteger(), nullable=True))
    dialect = op.get_bind().dialect.name
    for statement in (SHORTEN, LABELS[dialect], METRIC_NAMES[dialect]):
        op.execute(statement)
    op.create_index("ix_job_labels_project_id_key_value_job_id", "job_labels", ["project_id", "key", "value", "job_id"])
    for column in ("state", "method", "model"):
        op.create_index(f"ix_jobs_project_id_{column}_id", "jobs", ["project_id", column, "id"])


def downgrade() -> None:
    for column in ("state", "method", "model"):
        op.drop_index(f"ix_jobs_project_id_{column}_id", "jobs")
    op.drop_table("job_labels")
    op.drop_column("checkpoint_files", "crc32")
    op.drop_column("jobs", "metric_names")
