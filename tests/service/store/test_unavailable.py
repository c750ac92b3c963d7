"""Why a store cannot be used: real folders, a real full disk and a real S3 server; the reason is the true one."""

import errno
import shutil
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from service.settings import Settings
from service.store.database import open_store
from service.store.objects import DirectoryStore, ObjectNotFound, ObjectStore
from service.store.s3 import S3Store
from service.store.unavailable import ObjectsUnavailable, Reason, disk_errors, reason_of_database, reason_of_s3
from tests.servers.swift import S3Server
from tests.service.store.test_objects import content_of, s3_settings


def reason_of(store: ObjectStore, tmp_path: Path) -> list[Reason]:
    """What every way of writing and reading says of a store that cannot be used."""
    (tmp_path / "source").write_bytes(b"content")
    reasons: list[Reason] = []
    for use in (
        lambda: store.put_file("a/b", tmp_path / "source"),
        lambda: store.put_bytes("a/b", b"content"),
        lambda: store.get_file("a/b", tmp_path / "target"),
        lambda: content_of(store, "a/b"),
        lambda: content_of(store, "a/b", 1, 3),
        lambda: store.head("a/b"),
        lambda: list(store.list("a/")),
    ):
        with pytest.raises(ObjectsUnavailable) as found:
            use()
        reasons.append(found.value.reason)
    return reasons


def test_a_bucket_that_does_not_exist_is_missing_and_no_missing_object(s3_server: S3Server, tmp_path: Path) -> None:
    store = S3Store(s3_settings(s3_server, tmp_path).model_copy(update={"s3_bucket": "nobody-made-this"}))
    assert set(reason_of(store, tmp_path)) == {"missing"}


def test_a_folder_that_is_gone_is_missing_and_no_missing_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "objects")
    shutil.rmtree(tmp_path / "objects")
    assert set(reason_of(store, tmp_path)) == {"missing"}


def test_a_wrong_secret_is_denied(s3_server: S3Server, tmp_path: Path) -> None:
    wrong = {"s3_secret_access_key": SecretStr("wrong")}
    store = S3Store(s3_settings(s3_server, tmp_path).model_copy(update=wrong))
    assert set(reason_of(store, tmp_path)) == {"denied"}


def test_a_server_that_is_away_heals_by_itself(tmp_path: Path) -> None:
    store = S3Store(
        Settings(
            data_dir=tmp_path,
            object_store="s3",
            s3_endpoint_url="http://127.0.0.1:1",
            s3_bucket="attune",
            s3_access_key_id="key",
            s3_secret_access_key=SecretStr("hush"),
        )
    )
    with pytest.raises(ObjectsUnavailable) as found:
        store.put_bytes("a", b"x")
    assert (found.value.reason, found.value.heals) == ("unreachable", True)
    assert found.value.told == "the object store does not answer"


def test_an_object_that_is_missing_is_still_that(s3_server: S3Server, tmp_path: Path) -> None:
    store = S3Store(s3_settings(s3_server, tmp_path))
    for look in (store.head, lambda key: content_of(store, key, 1, 2), lambda key: store.get_file(key, tmp_path / "t")):
        with pytest.raises(ObjectNotFound):
            look("nothing")


def test_a_full_disk_is_full_until_there_is_room(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "objects")
    with pytest.raises(ObjectsUnavailable) as found:
        store.put_bytes("a", bytes(2 * 2**20))
    assert (found.value.reason, found.value.heals) == ("full", False)
    store.put_bytes("a", b"fits")
    assert content_of(store, "a") == b"fits"


def test_a_disk_that_became_read_only_says_so(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "objects")
    store.put_bytes("a", b"written before")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for change in (lambda: store.put_bytes("a", b"x"), lambda: store.delete("a")):
        with pytest.raises(ObjectsUnavailable) as found:
            change()
        assert found.value.reason == "read_only"
    assert content_of(store, "a") == b"written before"


def test_a_full_disk_on_the_callers_side_is_no_fault_of_the_store(small_disk: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "objects")
    store.put_bytes("a", bytes(2 * 2**20))
    with pytest.raises(OSError, match="No space left"):
        store.get_file("a", small_disk / "target")


def test_a_source_that_is_gone_is_no_fault_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectoryStore(tmp_path / "objects").put_file("a", tmp_path / "none")


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EDQUOT, "full"), (errno.EIO, "broken"), (errno.EPERM, "denied"), (errno.ESTALE, "unreachable")],
)
def test_errors_of_disks_have_a_reason(number: int, reason: Reason) -> None:
    with pytest.raises(ObjectsUnavailable) as found, disk_errors("a"):
        raise OSError(number, "as the kernel says it")
    assert found.value.reason == reason


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("XMinioStorageFull", 507, "full"),
        ("SomethingFull", 507, "full"),
        ("QuotaExceeded", 403, "full"),
        ("AccessDenied", 403, "denied"),
        ("403", 403, "denied"),
        ("SlowDown", 503, "unreachable"),
        ("InternalError", 500, "unreachable"),
        ("TooManyRequests", 429, "unreachable"),
        ("PermanentRedirect", 301, "refused"),
        ("EntityTooLarge", 400, "refused"),
    ],
)
def test_answers_of_s3_servers_have_a_reason(code: str, status: int, reason: Reason) -> None:
    assert reason_of_s3(code, status) == reason


@pytest.mark.parametrize(("pragma", "reason"), [("max_page_count = 3", "full"), ("query_only = ON", "read_only")])
def test_errors_of_sqlite_have_a_reason(tmp_path: Path, pragma: str, reason: Reason) -> None:
    store = open_store(f"sqlite:///{tmp_path}/small.sqlite3")
    with store.engine.connect() as connection:
        connection.execute(sa.text("CREATE TABLE t (content TEXT)"))
        connection.execute(sa.text(f"PRAGMA {pragma}"))
        with pytest.raises(OperationalError) as found:
            connection.execute(sa.text("INSERT INTO t VALUES (:content)"), {"content": "x" * 100_000})
    assert reason_of_database(found.value.orig) == reason
    store.close()
