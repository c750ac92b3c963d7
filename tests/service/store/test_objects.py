"""One contract for both object stores; S3 is a real server."""

import errno
import hashlib
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from service.settings import Settings
from service.store.objects import (
    ABANDONED_SECONDS,
    DirectoryStore,
    ObjectNotFound,
    ObjectStore,
    check_key,
    open_objects,
)
from service.store.s3 import S3Store
from service.store.unavailable import ObjectsUnavailable
from tests.servers.swift import S3Server

PART = 5 * 2**20


def s3_settings(server: S3Server, data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        object_store="s3",
        s3_endpoint_url=server.endpoint_url,
        s3_bucket=server.make_bucket(),
        s3_access_key_id=server.access_key_id,
        s3_secret_access_key=SecretStr(server.secret_access_key),
        s3_addressing_style="path",
        transfer_part_bytes=PART,
    )


@pytest.fixture(params=["directory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "directory":
        yield open_objects(Settings(data_dir=tmp_path))
    else:
        yield open_objects(s3_settings(request.getfixturevalue("s3_server"), tmp_path))


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "objects")


def content_of(store: ObjectStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.open_range(key, start, end))


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_what_is_put_can_be_got(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put_bytes("projects/p/manifest.json", b"{}")
    assert content_of(objects, "projects/p/manifest.json") == b"{}"
    info = objects.head("projects/p/manifest.json")
    assert (info.key, info.size_bytes) == ("projects/p/manifest.json", 2)
    objects.get_file("projects/p/manifest.json", tmp_path / "new" / "folder" / "m.json")
    assert (tmp_path / "new" / "folder" / "m.json").read_bytes() == b"{}"


def test_a_file_of_several_parts_arrives_unchanged(objects: ObjectStore, tmp_path: Path) -> None:
    content = noise(2 * PART + 12_345)
    (tmp_path / "source").write_bytes(content)
    objects.put_file("big/weights.safetensors", tmp_path / "source")
    assert objects.head("big/weights.safetensors").size_bytes == len(content)
    objects.get_file("big/weights.safetensors", tmp_path / "target")
    digest = hashlib.sha256(content).digest()
    assert hashlib.sha256((tmp_path / "target").read_bytes()).digest() == digest
    assert hashlib.sha256(content_of(objects, "big/weights.safetensors")).digest() == digest


def test_a_second_put_replaces_the_first(objects: ObjectStore) -> None:
    objects.put_bytes("a", b"a long first version")
    objects.put_bytes("a", b"second")
    assert content_of(objects, "a") == b"second"


def test_empty_objects_are_objects(objects: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    objects.put_file("empty", tmp_path / "empty")
    assert objects.head("empty").size_bytes == 0
    assert content_of(objects, "empty") == b""
    objects.get_file("empty", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b""


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 1), (3, 7), (9, None), (9, 10), (5, 100), (10, None), (50, None), (4, 4), (0, 0)]
)
def test_ranges_are_those_of_a_slice(objects: ObjectStore, start: int, end: int | None) -> None:
    objects.put_bytes("digits", b"0123456789")
    assert content_of(objects, "digits", start, end) == b"0123456789"[start:end]


def test_lists_have_every_key_of_a_prefix_in_order(objects: ObjectStore) -> None:
    keys = ["jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/2", "jobs-old/1", "z", "jobs/1/é"]
    for key in keys:
        objects.put_bytes(key, key.encode())
    assert [info.key for info in objects.list("jobs/1/")] == ["jobs/1/a", "jobs/1/b/c", "jobs/1/é"]
    assert [info.key for info in objects.list("jobs/1")] == ["jobs/1/a", "jobs/1/b/c", "jobs/1/é", "jobs/10/a"]
    assert [info.key for info in objects.list("")] == sorted(keys, key=str.encode)
    assert [info.size_bytes for info in objects.list("jobs/2")] == [6]
    assert list(objects.list("nothing/here/")) == []


def test_a_missing_object_is_named(objects: ObjectStore, tmp_path: Path) -> None:
    objects.put_bytes("folder/file", b"x")
    for key in ("none", "folder", "folder/none"):
        for look in (objects.head, objects.open_range, lambda key: objects.get_file(key, tmp_path / "target")):
            with pytest.raises(ObjectNotFound, match=repr(key)):
                look(key)
    assert not (tmp_path / "target").exists()


def test_a_deleted_object_is_gone_and_may_be_deleted_again(objects: ObjectStore) -> None:
    objects.put_bytes("a/b/c", b"x")
    objects.put_bytes("a/d", b"y")
    for _ in range(2):
        objects.delete("a/b/c")
    assert [info.key for info in objects.list("")] == ["a/d"]
    objects.put_bytes("a/b", b"what was a folder may be a file now")
    assert content_of(objects, "a/b").startswith(b"what")


BAD_KEYS = [
    "",
    "/etc/passwd",
    "..",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\\b",
    "a\nb",
    "k" * 256,
    "p/" * 600 + "x",
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_lead_elsewhere_are_refused(objects: ObjectStore, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for use in (
        lambda: objects.put_bytes(key, b"x"),
        lambda: objects.put_file(key, tmp_path / "file"),
        lambda: objects.get_file(key, tmp_path / "target"),
        lambda: objects.open_range(key),
        lambda: objects.head(key),
        lambda: objects.delete(key),
        lambda: objects.url(key, 60, "x"),
    ):
        with pytest.raises(ValueError, match="object key"):
            use()


def test_keys_of_every_language_work(objects: ObjectStore) -> None:
    for key in ("ключ/日本語 with space", "a%2Fb", "a+b&c=d?e#f", "q'uote\"s"):
        objects.put_bytes(key, key.encode())
        assert content_of(objects, key) == key.encode()
        assert [info.key for info in objects.list(key)] == [key]


def test_readers_see_one_version_or_the_other(objects: ObjectStore) -> None:
    versions = [bytes([number]) * (100_000 * (number + 1)) for number in range(4)]
    objects.put_bytes("shared", versions[0])
    with ThreadPoolExecutor(6) as pool:
        writes = [pool.submit(objects.put_bytes, "shared", version) for version in versions * 3]
        reads = [pool.submit(content_of, objects, "shared") for _ in range(12)]
        for write in writes:
            write.result()
        assert all(read.result() in versions for read in reads)


# --- S3 alone ---


def test_a_presigned_url_downloads_under_the_given_name(s3_server: S3Server, tmp_path: Path) -> None:
    objects = S3Store(s3_settings(s3_server, tmp_path))
    objects.put_bytes("projects/p/x", b"content")
    url = objects.url("projects/p/x", 60, 'Ä "quoted"; name.zip')
    assert url is not None
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"
        disposition = answer.headers["Content-Disposition"]
    assert disposition == "attachment; filename*=UTF-8''%C3%84%20%22quoted%22%3B%20name.zip"


def test_links_for_clients_are_signed_for_the_address_that_clients_use(s3_server: S3Server, tmp_path: Path) -> None:
    public = s3_server.endpoint_url.replace("127.0.0.1", "localhost")
    objects = S3Store(s3_settings(s3_server, tmp_path).model_copy(update={"s3_public_endpoint_url": public}))
    objects.put_bytes("a", b"content")
    url = objects.url("a", 60, "a")
    assert url is not None
    assert url.startswith(f"{public}/")
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"content"


def test_a_changed_presigned_url_opens_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    objects = S3Store(s3_settings(s3_server, tmp_path))
    for key in ("mine", "other"):
        objects.put_bytes(key, b"content")
    url = objects.url("mine", 60, "x")
    assert url is not None
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("/mine?", "/other?"))
    with refused.value as answer:
        assert answer.code == 403


def test_a_wrong_secret_is_no_missing_object(s3_server: S3Server, tmp_path: Path) -> None:
    right = s3_settings(s3_server, tmp_path)
    wrong = S3Store(right.model_copy(update={"s3_secret_access_key": SecretStr("wrong")}))
    with pytest.raises(Exception, match=r"403|Forbidden"):
        wrong.head("anything")
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        wrong.put_bytes("anything", b"x")


def test_the_secret_is_never_printed(s3_server: S3Server, tmp_path: Path) -> None:
    chosen = s3_settings(s3_server, tmp_path)
    assert "testing" not in repr(chosen) + chosen.model_dump_json()


# --- the directory alone ---


def test_a_directory_has_no_urls(directory: DirectoryStore) -> None:
    directory.put_bytes("a", b"x")
    assert directory.url("a", 60, "a") is None


def test_a_put_that_fails_leaves_the_old_object_and_no_rubbish(directory: DirectoryStore, tmp_path: Path) -> None:
    directory.put_bytes("a", b"old")

    class Full:
        """A source that fails as a full disk does."""

        def read(self, _: int) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ObjectsUnavailable, match="No space"):
        directory._put("a", Full())  # type: ignore[arg-type]
    assert content_of(directory, "a") == b"old"
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == [tmp_path / "objects/data/a"]


def test_symbolic_links_are_not_followed(directory: DirectoryStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"secret")
    data = tmp_path / "objects" / "data"
    (data / "link").symlink_to(secret)
    (data / "file").symlink_to(secret / "file")
    for key in ("link/file", "file"):
        with pytest.raises((ValueError, ObjectNotFound)):
            directory.head(key)
        with pytest.raises((ValueError, ObjectNotFound)):
            directory.open_range(key)
    with pytest.raises(ValueError, match="symbolic link"):
        directory.put_bytes("link/new", b"x")
    with pytest.raises(ValueError, match="symbolic link"):
        directory.delete("link/file")
    directory.put_bytes("file", b"replaces the link, not what it points to")
    assert (secret / "file").read_bytes() == b"secret"
    assert [info.key for info in directory.list("")] == ["file"]
    assert list(directory.list("link/")) == []


def test_puts_and_deletes_beside_one_another_lose_nothing(directory: DirectoryStore) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(50):
            directory.put_bytes(f"shared/folder/{number}", b"x")
            directory.delete(f"shared/folder/{number}")
        directory.put_bytes(f"shared/folder/{number}", b"last")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert len(list(directory.list("shared/"))) == 4


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@settings(max_examples=300)
def test_every_key_that_passes_stays_inside_its_folder(key: str) -> None:
    try:
        checked = check_key(key)
    except ValueError:
        return
    root = Path("/srv/objects")
    joined = Path(f"{root}/{checked}")
    assert joined.is_relative_to(root)
    assert ".." not in joined.parts
    assert "\0" not in checked
    assert joined.relative_to(root).as_posix() == key, "two keys never mean one file"


def test_what_a_killed_process_left_half_written_is_removed_a_day_later(tmp_path: Path) -> None:
    folder = tmp_path / "objects" / "tmp"
    folder.mkdir(parents=True)
    left, young = folder / ".partial-left", folder / ".partial-young"
    for path in (left, young):
        path.write_bytes(b"half of a checkpoint")
    a_day_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (a_day_ago, a_day_ago))
    DirectoryStore(tmp_path / "objects")
    assert not left.exists()
    assert young.exists(), "another process may be writing it"
