"""Opening a dataset: what it is, is told by its content."""

import zipfile
from pathlib import Path

from alignment_core.datasets.archives import ZipFiles
from alignment_core.datasets.files import FolderFiles
from alignment_core.datasets.jsonl import JsonlSource
from alignment_core.datasets.parquet import CANONICAL, ParquetSource, parquet_columns
from alignment_core.datasets.pick_a_pic import PICK_A_PIC
from alignment_core.datasets.rows import PreferenceSource
from alignment_core.errors import DataError

EXPECTED = "expected a parquet file, a folder of parquet files, or a folder or zip with a *.jsonl file and its images"


def open_preferences(path: Path) -> PreferenceSource:
    """The dataset at `path`, ready to be read.

    Raises `DataError`: `missing_file`, `unknown_format`, `missing_column`, `unreadable_file` or `unsafe_archive`.
    """
    if not path.exists():
        raise DataError("missing_file", f"{path.name}: no such file or folder; {EXPECTED}")
    if path.is_dir():
        return _open_folder(path)
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"PAR1":
        return _open_parquet(path, [path])
    if magic[:2] == b"PK" or zipfile.is_zipfile(path):
        return JsonlSource(ZipFiles(path))
    hint = "; a jsonl file comes in a folder or zip, with its images" if path.suffix == ".jsonl" else ""
    raise DataError("unknown_format", f"{path.name}: {EXPECTED}{hint}")


def _open_folder(path: Path) -> PreferenceSource:
    shards = sorted(entry for entry in path.rglob("*.parquet") if entry.is_file())
    has_jsonl = any(path.glob("*.jsonl"))
    if shards and has_jsonl:
        raise DataError("unknown_format", f"{path.name}: both parquet and jsonl files; expected one kind")
    if shards:
        return _open_parquet(path, shards)
    if has_jsonl:
        return JsonlSource(FolderFiles(path))
    raise DataError("unknown_format", f"{path.name}: neither *.parquet nor *.jsonl in this folder; {EXPECTED}")


def _open_parquet(path: Path, files: list[Path]) -> PreferenceSource:
    columns = set(parquet_columns(files[0]))
    looks_like_pick_a_pic = len(columns & PICK_A_PIC.all_required) > len(columns & CANONICAL.all_required)
    return ParquetSource(path, files, PICK_A_PIC if looks_like_pick_a_pic else CANONICAL)
