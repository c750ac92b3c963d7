"""Opening a dataset: what it is, is told by its content."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignment_core.datasets.archives import ZipFiles
from alignment_core.datasets.files import FileTree, FolderFiles
from alignment_core.datasets.jsonl import PAIR_LINES, JsonlSource, jsonl_columns
from alignment_core.datasets.parquet import CANONICAL, ParquetSource, parquet_columns
from alignment_core.datasets.pick_a_pic import PICK_A_PIC
from alignment_core.datasets.rows import PreferenceSource, Source
from alignment_core.datasets.unpaired import UNPAIRED, UNPAIRED_LINES, ImageAnnotation
from alignment_core.errors import DataError

DatasetKind = Literal["pairs", "unpaired"]

EXPECTED = "expected a parquet file, a folder of parquet files, or a folder or zip with a *.jsonl file and its images"


def dataset_kind(path: Path) -> DatasetKind:
    """Whether the rows at `path` are pairs or single images: `unpaired` has a column `image`, and nothing of a pair.

    Raises as `open_preferences` does.
    """
    return _kind_of(_columns(_find(path)))


def open_preferences(path: Path) -> PreferenceSource:
    """The preference pairs at `path`, ready to be read.

    Raises `DataError`: `missing_file`, `unknown_format`, `missing_column`, `unreadable_file` or `unsafe_archive`.
    """
    found = _find(path)
    if isinstance(found, _Shards):
        columns = _columns(found)
        looks_like_pick_a_pic = len(columns & PICK_A_PIC.all_required) > len(columns & CANONICAL.all_required)
        return ParquetSource(path, found.files, PICK_A_PIC if looks_like_pick_a_pic else CANONICAL)
    return JsonlSource(found, PAIR_LINES)


def open_unpaired(path: Path) -> Source[ImageAnnotation]:
    """The judged images at `path`, ready to be read; raises as `open_preferences` does."""
    found = _find(path)
    if isinstance(found, _Shards):
        return ParquetSource(path, found.files, UNPAIRED)
    return JsonlSource(found, UNPAIRED_LINES)


@dataclass(frozen=True)
class _Shards:
    files: list[Path]


def _find(path: Path) -> _Shards | FileTree:
    if not path.exists():
        raise DataError("missing_file", f"{path.name}: no such file or folder; {EXPECTED}")
    if path.is_dir():
        return _find_in_folder(path)
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"PAR1":
        return _Shards([path])
    if magic[:2] == b"PK" or zipfile.is_zipfile(path):
        return ZipFiles(path)
    hint = "; a jsonl file comes in a folder or zip, with its images" if path.suffix == ".jsonl" else ""
    raise DataError("unknown_format", f"{path.name}: {EXPECTED}{hint}")


def _find_in_folder(path: Path) -> _Shards | FileTree:
    shards = sorted(entry for entry in path.rglob("*.parquet") if entry.is_file())
    has_jsonl = any(path.glob("*.jsonl"))
    if shards and has_jsonl:
        raise DataError("unknown_format", f"{path.name}: both parquet and jsonl files; expected one kind")
    if shards:
        return _Shards(shards)
    if has_jsonl:
        return FolderFiles(path)
    raise DataError("unknown_format", f"{path.name}: neither *.parquet nor *.jsonl in this folder; {EXPECTED}")


def _columns(found: _Shards | FileTree) -> set[str]:
    return set(parquet_columns(found.files[0]) if isinstance(found, _Shards) else jsonl_columns(found))


def _kind_of(columns: set[str]) -> DatasetKind:
    of_pairs = {*CANONICAL.image_columns, *PICK_A_PIC.image_columns}
    return "unpaired" if "image" in columns and not columns & of_pairs else "pairs"
