"""The servers are what they say, and end with the session that started them, however that ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers.postgres import PostgresServer
from tests.servers.process import accepts_connections, wait_until
from tests.servers.swift import S3Server


def test_postgres_is_postgres(postgres_server: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT version()").fetchone()
    assert row is not None
    assert row[0].startswith("PostgreSQL ")


def test_every_database_and_bucket_is_new(postgres_server: PostgresServer, s3_server: S3Server) -> None:
    assert postgres_server.make_database() != postgres_server.make_database()
    bucket = s3_server.make_bucket()
    assert bucket != s3_server.make_bucket()
    assert s3_server.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}


START = """\
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job is started without
from tests.servers.{module} import {name}
try:
    with {name}() as server:
        print(server.{where}, flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(
    ("module", "where"), [("redis", "port"), ("postgres", "socket_folder"), ("swift", "endpoint_url")]
)
def test_a_server_ends_with_its_session(module: str, where: str, how: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)  # PostgreSQL runs as a user of its own where the session is root's
        environment = {**os.environ, "PYTHONPATH": str(root), "TMPDIR": temporary}
        program = START.format(module=module, name=module, where=where)
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
        ) as session:
            assert session.stdout is not None
            address = session.stdout.readline().strip()
            assert is_up(address)
            session.send_signal(how)
        wait_until(lambda: not is_up(address), f"{module} ending after {how.name}", timeout_seconds=15)
        wait_until(lambda: not list(Path(temporary).glob("attune-*")), "its folder going", timeout_seconds=15)


def is_up(address: str) -> bool:
    if address.startswith("/"):
        try:
            psycopg.connect(host=address, user="postgres").close()
        except psycopg.OperationalError:
            return False
        return True
    return accepts_connections(int(address.rpartition(":")[2]))
