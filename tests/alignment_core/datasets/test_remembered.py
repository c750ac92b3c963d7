"""A dataset is decoded once, and again when it changes."""

import os
from pathlib import Path

import pytest

from alignment_core.datasets.remembered import check_rows_once
from alignment_core.errors import DataError
from tests.alignment_core.tiny import save_pairs


def test_an_unchanged_dataset_is_not_read_again(tmp_path: Path) -> None:
    path = save_pairs(tmp_path / "pairs.parquet")
    first = check_rows_once(path, tmp_path / "cache")
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)  # same inode, size and time: only reading it would tell
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert check_rows_once(path, tmp_path / "cache") == first


def test_a_changed_dataset_is_read_again(tmp_path: Path) -> None:
    path = save_pairs(tmp_path / "pairs.parquet")
    assert check_rows_once(path, tmp_path / "cache").report.num_rows == 12
    save_pairs(path, num_pairs=8)
    assert check_rows_once(path, tmp_path / "cache").report.num_rows == 8


def test_a_damaged_memory_is_no_answer(tmp_path: Path) -> None:
    path = save_pairs(tmp_path / "pairs.parquet")
    first = check_rows_once(path, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "preflight").iterdir()
    memory.write_text("{}")
    assert check_rows_once(path, tmp_path / "cache") == first


def test_a_dataset_that_cannot_be_read_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"not parquet")
    for _ in range(2):
        with pytest.raises(DataError):
            check_rows_once(path, tmp_path / "cache")
