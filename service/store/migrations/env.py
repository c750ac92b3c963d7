"""Run by Alembic: migrations over the connection that `migrate` holds."""

import sqlalchemy as sa
from alembic import context

from service.store.models import Base, UTCDateTime


def _render(kind: str, value: object, _context: object) -> str | bool:
    """Migrations name plain types, so that they still run when a class of ours has moved."""
    if kind == "type" and isinstance(value, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=_render,  # pyright: ignore[reportArgumentType]
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
