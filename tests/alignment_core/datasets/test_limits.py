"""A file that is small and grows without end is refused while it streams, before it has cost much."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment_core.datasets import limits
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.preflight import check_preferences
from alignment_core.errors import DataError
from tests.alignment_core.datasets.builders import image_bytes


def repeated(path: Path, num_rows: int, prompt: str) -> Path:
    """One row over and over; dictionaries make the repetitions free."""
    columns = {"prompt": prompt, "chosen": image_bytes(0), "rejected": image_bytes(1)}
    zeros = pa.array([0] * num_rows, pa.int32())
    table = pa.table({name: pa.DictionaryArray.from_arrays(zeros, pa.array([one])) for name, one in columns.items()})
    pq.write_table(table, path, store_schema=False, row_group_size=num_rows)
    return path


def test_three_million_rows_of_a_long_prompt_are_refused_before_the_check_has_read_a_hundredth(tmp_path: Path) -> None:
    path = repeated(tmp_path / "a.parquet", 3_000_000, "x" * 20_000)
    assert path.stat().st_size < 1_500_000
    read: list[int] = []
    with pytest.raises(DataError, match="grow to more than 1,073,741,824 bytes of values") as caught:
        read.extend(row.number for row in open_preferences(path).annotations())
    assert caught.value.code == "unsafe_archive"
    assert len(read) < 60_000


def test_a_prompt_that_is_too_long_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 2**20)
    monkeypatch.setattr(limits, "MAX_RATIO", 10)
    with pytest.raises(DataError, match="bytes of values"):
        check_preferences(repeated(tmp_path / "a.parquet", 1000, "x" * 30_000))


def test_images_that_are_repeated_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 2**16)
    monkeypatch.setattr(limits, "MAX_RATIO", 10)
    with pytest.raises(DataError, match="bytes of images"):
        check_preferences(repeated(tmp_path / "a.parquet", 1000, "a"))


def test_a_zip_whose_rows_all_name_one_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 2**16)
    monkeypatch.setattr(limits, "MAX_RATIO", 10)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", image_bytes(0))
        archive.writestr("1.png", image_bytes(1))
        line = json.dumps({"prompt": "p", "chosen": "0.png", "rejected": "1.png"})
        archive.writestr("pairs.jsonl", "\n".join([line] * 1000))
    with pytest.raises(DataError, match="bytes of images"):
        check_preferences(tmp_path / "a.zip")


def test_too_many_rows_are_refused_by_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 20)
    with pytest.raises(DataError, match=r"a.parquet: 21 rows or more; expected at most 20 in one dataset") as caught:
        open_preferences(repeated(tmp_path / "a.parquet", 21, "a"))
    assert caught.value.code == "dataset_too_large"


def test_too_many_lines_are_refused_while_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 20)
    (tmp_path / "a.jsonl").write_text("{}\n" * 21)
    (tmp_path / "b.jsonl").write_text('{"prompt": "p", "chosen": "a.png", "rejected": "b.png"}\n')
    with pytest.raises(DataError, match="21 rows or more"):
        list(open_preferences(tmp_path).annotations())
