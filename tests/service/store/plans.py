"""How a database would answer a statement that SQLAlchemy sent to it."""

from typing import Any

from sqlalchemy import event as sa_event

from service.store.database import Store


def explain(store: Store, statement: str, parameters: Any) -> str:
    """The plan in the database's own words: a line a step."""
    is_sqlite = store.engine.dialect.name == "sqlite"
    with store.engine.connect() as connection:
        prefix = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{prefix} {statement}", parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


def sent_by(store: Store) -> list[tuple[str, Any]]:
    """A list that fills with the statements that the store sends from now on, and what they bind."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            sent.append((statement, parameters))

    sa_event.listen(store.engine, "before_cursor_execute", note)
    return sent
