"""Who owns what, and who may say so."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id


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
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
