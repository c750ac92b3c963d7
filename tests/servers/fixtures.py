"""Session-wide fixtures of the real servers; `tests/conftest.py` loads this file as a plugin.

A server's client libraries are imported when it is asked for, so that a test that needs none starts at once.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer
    from tests.servers.redis import RedisServer
    from tests.servers.swift import S3Server


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[PostgresServer]":
    from tests.servers.postgres import postgres

    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: "PostgresServer") -> str:
    """SQLAlchemy URL of an empty database, one for the whole session; `postgres_server.make_database()` makes more."""
    return postgres_server.url(postgres_server.make_database())


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[S3Server]":
    """`endpoint_url`, `access_key_id`, `secret_access_key`, `region`, and `make_bucket()`, which returns a name."""
    from tests.servers.swift import swift

    with swift() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> "Iterator[RedisServer]":
    from tests.servers.redis import redis

    with redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: "RedisServer") -> str:
    return redis_server.url


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting takes rights that this user does not have")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
