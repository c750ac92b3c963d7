"""A file is read for its hash once, and again when anything about it changed."""

import hashlib
import os
from pathlib import Path

import pytest

from alignment_core.families import file_hashes
from alignment_core.families.file_hashes import FileHashes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that counts as settled."""
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1.0)
    written = tmp_path / "weights.safetensors"
    written.write_bytes(b"weights")
    return written


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("it is read again")

    monkeypatch.setattr(hashlib, "file_digest", refused)


def test_another_process_need_not_read_a_file_that_one_has_hashed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FileHashes(tmp_path / "hashes").of(file) == sha256(b"weights")
    refuse_to_read(monkeypatch)
    assert FileHashes(tmp_path / "hashes").of(file) == sha256(b"weights")


def test_a_file_of_the_same_size_and_time_of_change_is_hashed_anew_when_it_was_written(
    file: Path, tmp_path: Path
) -> None:
    hashes, before = FileHashes(tmp_path / "hashes"), file.stat()
    hashes.of(file)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert hashes.of(file) == FileHashes(tmp_path / "hashes").of(file) == sha256(b"WEIGHTS")


def test_a_file_that_has_just_been_written_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    hashes = FileHashes(tmp_path / "hashes")
    assert hashes.of(file) == sha256(b"weights")
    assert not (tmp_path / "hashes").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"state": "", "sha256": "00"}'])
def test_what_was_remembered_and_is_not_whole_is_found_again(file: Path, tmp_path: Path, content: bytes) -> None:
    FileHashes(tmp_path / "hashes").of(file)
    (kept,) = (tmp_path / "hashes").iterdir()
    kept.write_bytes(content)
    assert FileHashes(tmp_path / "hashes").of(file) == sha256(b"weights")


def test_a_folder_that_cannot_be_written_costs_no_hash(file: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes").write_bytes(b"a file in its place")
    assert FileHashes(tmp_path / "hashes").of(file) == sha256(b"weights")
