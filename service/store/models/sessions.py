"""What stands in for a key: sessions of browsers, and the secrets that links are signed with."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id


class BrowserSession(Base):
    """A browser that showed a key. The row goes when the session ends; see `sessions.py`."""

    __tablename__ = "sessions"
    __table_args__ = (sa.Index("ix_sessions_project_id_id", "project_id", "id"), sa.Index(None, "key_id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    key_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("api_keys.id"))
    token_sha256: Mapped[str] = mapped_column(sa.String(64), unique=True)
    remote: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class LinkSecret(Base):
    """Signs links for a day, and is known until the last of them has ended; see `link_secrets.py`."""

    __tablename__ = "link_secrets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    secret: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]
