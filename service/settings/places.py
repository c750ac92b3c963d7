"""Where things live: folders, the database, the queue."""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

from pydantic import Field, field_validator

from service.settings.base import Group

LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107 in sockaddr_un, macOS 103


class Places(Group):
    """Where things live: folders, the database, the queue."""

    data_dir: Path = Field(
        default=Path(".attune"), description="Folder of every embedded part; made absolute when read."
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Latents, text embeddings, hashes of weights, downloaded datasets and prompt sets, kept between jobs; `cache` in data_dir.",
    )
    work_dir: Path | None = Field(default=None, description="One work folder a running job; `work` in data_dir.")
    catalog_path: Path | None = Field(
        default=None,
        description="JSON file of the models and rewards offered by name; without it the catalog is empty.",
    )
    allow_local_paths: bool = Field(
        default=False,
        description="Whether specs may name folders and files of the machine that trains. For single users.",
    )
    allow_hub_datasets: bool = Field(
        default=False,
        description="Whether specs may name datasets of the Hugging Face Hub, which workers then download.",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; SQLite in data_dir when empty. PostgreSQL by psycopg."
    )
    broker_url: str | None = Field(
        default=None,
        description="Celery broker (`redis://...`); when unset, a Valkey server on a unix socket in data_dir.",
    )

    @field_validator("data_dir", "cache_dir", "work_dir", "catalog_path")
    @classmethod
    def _paths_do_not_depend_on_the_working_directory(cls, path: Path | None) -> Path | None:
        return path if path is None else path.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _postgresql_goes_through_psycopg(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        return f"postgresql+psycopg://{rest}" if separator and scheme in ("postgres", "postgresql") else url

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'attune.sqlite3'}"

    @property
    def objects_dir(self) -> Path:
        return self.data_dir / "objects"

    @property
    def resolved_cache_dir(self) -> Path:
        return self.cache_dir or self.data_dir / "cache"

    @property
    def resolved_work_dir(self) -> Path:
        return self.work_dir or self.data_dir / "work"

    @property
    def broker_socket(self) -> Path:
        """Unix socket of the embedded broker; a folder of the user's in the temporary one when data_dir's path is too long."""
        socket = self.data_dir / "valkey.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
            return socket
        digest = sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"attune-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def resolved_broker_url(self) -> str:
        return self.broker_url or f"redis+socket://{self.broker_socket}?virtual_host=0"
