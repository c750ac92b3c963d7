from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import Settings


def test_everything_is_embedded_in_one_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.data_dir == tmp_path / ".attune"
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/.attune/attune.sqlite3"
    assert settings.objects_dir == tmp_path / ".attune" / "objects"
    assert settings.resolved_work_dir == tmp_path / ".attune" / "work"
    assert settings.resolved_cache_dir == tmp_path / ".attune" / "cache"
    assert settings.resolved_broker_url == f"redis+socket://{tmp_path}/.attune/valkey.sock?virtual_host=0"
    assert not settings.data_dir.exists(), "reading settings makes nothing"


def test_every_value_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": "postgresql://attune@db/attune",
        "BROKER_URL": "redis://redis:6379/0",
        "OBJECT_STORE": "s3",
        "S3_BUCKET": "models",
        "S3_ENDPOINT_URL": "http://s3:7070",
        "S3_SECRET_ACCESS_KEY": "hush",
        "LEASE_SECONDS": "2",
        "HEARTBEAT_SECONDS": "0.5",
        "ALLOW_LOCAL_PATHS": "true",
        "REMOTE_REWARD_HOSTS": "rewards.example.org, LOCALHOST,",
        "REMOTE_REWARD_SECRET": "hush",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"ATTUNE_{name}", value)
    settings = Settings()
    assert settings.resolved_database_url == "postgresql+psycopg://attune@db/attune"
    assert settings.resolved_broker_url == "redis://redis:6379/0"
    assert settings.s3_secret_access_key == SecretStr("hush")
    assert (settings.lease_seconds, settings.heartbeat_seconds) == (2, 0.5)
    assert settings.allow_local_paths
    assert settings.remote_reward_hosts == ("rewards.example.org", "localhost")
    assert settings.remote_reward_secret == SecretStr("hush")
    assert "hush" not in repr(settings)


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"object_store": "s3"}, "ATTUNE_S3_BUCKET is needed"),
        ({"lease_seconds": 10, "heartbeat_seconds": 6}, "at most half"),
        ({"max_list_limit": 0}, "max_list_limit"),
        ({"remote_reward_hosts": "https://rewards.example.org"}, "without scheme"),
        ({"remote_reward_hosts": "*.example.org"}, "wildcard"),
        ({"transfer_part_bytes": 1024}, "transfer_part_bytes"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(values)


def test_a_refused_value_takes_no_secret_into_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_OBJECT_STORE", "s3")
    monkeypatch.setenv("ATTUNE_S3_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("ATTUNE_DATABASE_URL", "postgresql://attune:hush@db/attune")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "ATTUNE_S3_BUCKET is needed" in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "checksums"),
    [
        ({}, "when_supported"),
        ({"s3_endpoint_url": "http://s3"}, "when_required"),
        ({"s3_endpoint_url": "http://s3", "s3_checksums": "when_supported"}, "when_supported"),
    ],
)
def test_custom_s3_servers_get_the_checksums_they_understand(values: dict, checksums: str) -> None:
    assert Settings.model_validate(values).resolved_s3_checksums == checksums


def test_a_deep_data_folder_still_has_a_socket_that_fits(tmp_path: Path) -> None:
    deep = Settings(data_dir=tmp_path / ("d" * 120))
    assert len(str(deep.broker_socket)) <= 100
    assert deep.broker_socket != Settings(data_dir=tmp_path / ("e" * 120)).broker_socket
