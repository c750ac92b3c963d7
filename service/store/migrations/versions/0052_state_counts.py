"""How many jobs and deliveries are in each state, counted as they change and not row by row when somebody asks

Revision 0052, after 0041. The database's triggers write a line for every change; a sweep adds them up (`counts.py`). What is there is
counted here, once the triggers are in place and hold off other writers.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0041"
branch_labels = None
depends_on = None

TABLES = ("jobs", "webhook_deliveries")


def upgrade() -> None:
    op.create_table(
        "state_counts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("counted", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("num", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state_counts")),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in TABLES:
        for statement in _on_sqlite(table) if is_sqlite else _on_postgresql(table):
            op.execute(statement)
        op.execute(
            f"INSERT INTO state_counts (counted, state, num) SELECT '{table}', state, count(*) FROM {table} GROUP BY state"  # noqa: S608 - names of our own
        )


def downgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in TABLES:
        for change in ("insert", "delete", "update"):
            op.execute(f"DROP TRIGGER count_{table}_{change}" + ("" if is_sqlite else f" ON {table}"))
        if not is_sqlite:
            for change in ("insert", "delete", "update"):
                op.execute(f"DROP FUNCTION count_{table}_{change}()")
    op.drop_table("state_counts")


def _on_sqlite(table: str) -> Iterator[str]:
    into = "INSERT INTO state_counts (counted, state, num) VALUES"
    line = f"{into} ('{table}',"
    yield f"CREATE TRIGGER count_{table}_insert AFTER INSERT ON {table} BEGIN {line} NEW.state, 1); END"
    yield f"CREATE TRIGGER count_{table}_delete AFTER DELETE ON {table} BEGIN {line} OLD.state, -1); END"
    yield (
        f"CREATE TRIGGER count_{table}_update AFTER UPDATE OF state ON {table} WHEN OLD.state <> NEW.state "
        f"BEGIN {line} OLD.state, -1), ('{table}', NEW.state, 1); END"
    )


def _on_postgresql(table: str) -> Iterator[str]:
    """Inserts and deletions once a statement, as they may be of many rows; changes of a state, which are of one, by row."""
    into = "INSERT INTO state_counts (counted, state, num)"
    of_many = f"'{table}', state"
    lines = {
        "insert": f"{into} SELECT {of_many}, count(*) FROM changed GROUP BY state;",  # noqa: S608
        "delete": f"{into} SELECT {of_many}, -count(*) FROM changed GROUP BY state;",  # noqa: S608
        "update": f"{into} VALUES ('{table}', OLD.state, -1), ('{table}', NEW.state, 1);",
    }
    when = {
        "insert": "REFERENCING NEW TABLE AS changed FOR EACH STATEMENT",
        "delete": "REFERENCING OLD TABLE AS changed FOR EACH STATEMENT",
        "update": "FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)",
    }
    for change, line in lines.items():
        name = f"count_{table}_{change}"
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {line} RETURN NULL; END $$"
        of = " OF state" if change == "update" else ""
        yield (f"CREATE TRIGGER {name} AFTER {change.upper()}{of} ON {table} {when[change]} EXECUTE FUNCTION {name}()")
