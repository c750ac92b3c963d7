"""Who owns what, and who may say so."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id
from service.store.records import Scope


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    created_at: Mapped[datetime]


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    prefix: Mapped[str] = mapped_column(sa.String(40), unique=True)
    secret_sha256: Mapped[str] = mapped_column(sa.String(64))
    scope: Mapped[Scope] = mapped_column(sa.String(8), default="admin", server_default="admin")
    rotated_from_id: Mapped[str | None] = mapped_column(Id)  # the key that this one took the place of
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
