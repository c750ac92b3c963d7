"""The API on SQLite and a directory, and on PostgreSQL and S3, with a worker that writes as the real one does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.main import create_app
from service.settings import Settings
from service.store.migrations import migrate
from tests.servers.swift import S3Server
from tests.service.api.world import CATALOG, Api

NewApi = Callable[..., Api]
LOCAL = "http://localhost"  # a server without keys answers to names that it knows


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("template") / "attune.sqlite3"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def new_api(tmp_path: Path, database_template: bytes) -> Iterator[NewApi]:
    """Start an embedded service with these settings beside the usual ones."""
    clients: list[TestClient] = []

    def start(**settings: object) -> Api:
        data_dir = tmp_path / f"data-{len(clients)}"
        data_dir.mkdir()
        (data_dir / "attune.sqlite3").write_bytes(database_template)
        values = {"data_dir": data_dir, "catalog_path": CATALOG, **settings}
        client = TestClient(create_app(Settings.model_validate(values)), base_url=LOCAL, raise_server_exceptions=False)
        clients.append(client)
        client.__enter__()
        return Api(client)

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def api(new_api: NewApi) -> Api:
    """The embedded service."""
    return new_api()


@pytest.fixture
def s3_settings(s3_server: S3Server) -> dict[str, object]:
    """Settings of a store in a new bucket of the S3 server."""
    return {
        "object_store": "s3",
        "s3_endpoint_url": s3_server.endpoint_url,
        "s3_bucket": s3_server.make_bucket(),
        "s3_region": s3_server.region,
        "s3_access_key_id": s3_server.access_key_id,
        "s3_secret_access_key": SecretStr(s3_server.secret_access_key),
        "s3_addressing_style": "path",
    }


@pytest.fixture
def deployed_api(new_api: NewApi, request: pytest.FixtureRequest, s3_settings: dict[str, object]) -> Api:
    """The service on PostgreSQL, an S3 server and Redis."""
    postgres = request.getfixturevalue("postgres_server")
    return new_api(
        database_url=postgres.url(postgres.make_database()),
        broker_url=request.getfixturevalue("redis_url"),
        webhooks_key=SecretStr("k" * 32),
        **s3_settings,
    )


@pytest.fixture(params=["embedded", "deployed"])
def any_api(request: pytest.FixtureRequest) -> Api:
    """Both, one after the other."""
    return request.getfixturevalue({"embedded": "api", "deployed": "deployed_api"}[request.param])


@pytest.fixture
def keyed_api(new_api: NewApi) -> Api:
    """The embedded service, where everybody shows a key."""
    return new_api(api_keys_required=True, sign_ins_per_minute=1000)


@pytest.fixture(params=["embedded", "deployed"])
def any_keyed_api(request: pytest.FixtureRequest, new_api: NewApi) -> Api:
    """A server with keys on SQLite and on PostgreSQL."""
    settings: dict[str, Any] = {}
    if request.param == "deployed":
        postgres = request.getfixturevalue("postgres_server")
        settings = {"database_url": postgres.url(postgres.make_database())}
    return new_api(api_keys_required=True, **settings)
