"""What the tables share: times in UTC, names of constraints, the longest texts, and the keys of their rows."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UTCDateTime(sa.TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database; SQLite, which knows no time zones, keeps them as naive UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "a naive datetime would be read as another time elsewhere"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    # names for constraints, so that a migration can find them on every database
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy
        datetime: UTCDateTime,
        dict[str, Any]: sa.JSON(none_as_null=True),
        list[str]: sa.JSON(none_as_null=True),
        int: sa.BigInteger,
    }


Id = sa.String(40)
LONGEST_NAME = 200  # characters
LONGEST_FILENAME = 255
LONGEST_MODEL = 500  # PostgreSQL's index takes 2,700 bytes in all
LONGEST_LABEL_KEY = 64
LONGEST_LABEL_VALUE = 512


def project_id() -> Mapped[str]:
    return mapped_column(Id, sa.ForeignKey("projects.id"))


def job_id_key() -> Mapped[str]:
    return mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
