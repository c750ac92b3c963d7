"""Opening a dataset: what it is, is told by its content, and what its columns mean by their names or as its owner says."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from alignment_core.datasets.archives import ZipFiles
from alignment_core.datasets.arrow import open_arrow
from alignment_core.datasets.columnar import ColumnarTable
from alignment_core.datasets.columns import choose_reading
from alignment_core.datasets.files import FileTree, FolderFiles
from alignment_core.datasets.in_parts import file_in_parts, is_in_parts
from alignment_core.datasets.parquet import open_parquet
from alignment_core.datasets.rows import DatasetFormat, PreferenceSource, Source
from alignment_core.datasets.splits_by_name import other_splits_note, training_files
from alignment_core.datasets.tables import Table, TableSource
from alignment_core.datasets.text_tables import TextTable
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.errors import DataError

DatasetKind = Literal["pairs", "unpaired"]
Columns = Mapping[str, str]

EXPECTED = (
    "expected parquet files, or a folder or zip with a CSV, TSV, jsonl or JSON file and its images, or with Arrow files"
)
FORMS: dict[str, DatasetFormat] = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
}
# JSON that describes a dataset or what made it, and is none.
DESCRIPTIONS = frozenset({"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json"})


def dataset_kind(path: Path, columns: Columns | None = None) -> DatasetKind:
    """Whether the rows at `path` are pairs or single images; raises as `open_preferences` does."""
    return choose_reading(open_table(path), columns).layout.kind


def open_preferences(path: Path, columns: Columns | None = None) -> PreferenceSource:
    """The preference pairs at `path`, ready to be read; `columns` names the columns of roles that have other names there.

    Raises `DataError`: `missing_file`, `unknown_format`, `missing_column`, `unreadable_file` or `unsafe_archive`.
    """
    return _open(path, columns, "pairs")


def open_unpaired(path: Path, columns: Columns | None = None) -> Source[ImageAnnotation]:
    """The judged images at `path`, ready to be read; raises as `open_preferences` does."""
    return _open(path, columns, "unpaired")


def _open(path: Path, columns: Columns | None, kind: DatasetKind) -> TableSource[Any]:
    return source_of(open_table(path), columns, kind)


def source_of(table: Table, columns: Columns | None, kind: DatasetKind | None = None) -> TableSource[Any]:
    """The table read as its columns or `columns` say; of `kind`, or of whatever kind they make."""
    reading = choose_reading(table, columns, kind)
    return TableSource(
        table, reading.layout, reading.names, format=reading.format, are_others_known=reading.are_others_known
    )


def open_table(path: Path) -> Table:
    """The rows at `path` as they are, whatever they mean."""
    if not path.exists():
        raise DataError("missing_file", f"{path.name}: no such file or folder; {EXPECTED}")
    parts = file_in_parts(path) if is_in_parts(path) else None
    if parts is None and path.is_dir():
        return _table_of(FolderFiles(path))
    with path.open("rb") if parts is None else parts.content.open() as handle:
        magic = handle.read(4)
        is_zip = magic[:2] == b"PK" or (magic != b"PAR1" and zipfile.is_zipfile(handle))
    if magic == b"PAR1":
        shard = open_parquet(path.name, path if parts is None else parts.content)
        size_bytes = path.stat().st_size if parts is None else parts.note.size_bytes
        return ColumnarTable(path, [shard], "parquet", size_bytes=size_bytes)
    if is_zip:
        return _table_of(ZipFiles(parts or path))
    raise DataError("unknown_format", f"{path.name}: {EXPECTED}{_hint(path)}")


def open_lone_table(path: Path) -> Table:
    """As `open_table`, and a text file by itself, whose images are looked for in the folder that it is in.

    Not for uploads, and not for what is checked once and remembered: who sees the file does not see its neighbours.
    """
    form = FORMS.get(path.suffix.lower())
    if form in ("parquet", "arrow", None) or not path.is_file():
        return open_table(path)
    return TextTable(FolderFiles(path.absolute().parent), [path.name], form, path=path)


def _hint(path: Path) -> str:
    is_text = path.suffix.lower() in FORMS and path.suffix != ".parquet"
    return f"; a {path.suffix} file comes in a folder or zip, with its images" if is_text else ""


def _table_of(files: FileTree) -> Table:
    form, names = _table_files(files)
    chosen, others = training_files(names)
    notes = [other_splits_note(others)] if others else []
    match form:
        case "parquet":
            shards = [open_parquet(name, _parquet_source(files, name)) for name in chosen]
            return ColumnarTable(files.path, shards, form, size_bytes=files.size_bytes(), files=files, notes=notes)
        case "arrow":
            shards = [open_arrow(name, files.mapped(name)) for name in chosen]
            return ColumnarTable(files.path, shards, form, size_bytes=files.size_bytes(), files=files, notes=notes)
        case _:
            return TextTable(files, chosen, form, notes)


def _parquet_source(files: FileTree, name: str) -> Any:
    return files.real_path(name) if isinstance(files, FolderFiles) else files.mapped(name)


def _table_files(files: FileTree) -> tuple[DatasetFormat, list[str]]:
    """The files that hold the rows: of one form; JSON counts only where there is nothing else."""
    found: dict[DatasetFormat, list[str]] = {}
    for name in files.names(tuple(FORMS)):
        if PurePosixPath(name).name not in DESCRIPTIONS:
            found.setdefault(FORMS[PurePosixPath(name).suffix.lower()], []).append(name)
    found = _metadata_of_images(found) or found
    if len(found) > 1:
        found.pop("json", None)
    if len(found) > 1:
        raise DataError("unknown_format", f"{files.path.name}: both {_and(found)} files; expected one kind")
    if not found:
        raise DataError("unknown_format", f"{files.path.name}: no *{', *'.join(FORMS)} file in it; {EXPECTED}")
    ((form, names),) = found.items()
    if form == "arrow":
        return form, _in_order_of_state(files, names)
    return form, names if form == "parquet" else _shallowest(names)


def _and(found: Mapping[DatasetFormat, Sequence[str]]) -> str:
    return " and ".join(form for form in FORMS.values() if form in found)


def _metadata_of_images(found: Mapping[DatasetFormat, list[str]]) -> dict[DatasetFormat, list[str]]:
    """The `metadata.*` files of an ImageFolder, if there are any."""
    kept: dict[DatasetFormat, list[str]] = {
        form: [name for name in names if PurePosixPath(name).stem == "metadata"] for form, names in found.items()
    }
    return {form: names for form, names in kept.items() if names}


def _shallowest(names: Sequence[str]) -> list[str]:
    depth = min(name.count("/") for name in names)
    return [name for name in names if name.count("/") == depth]


def _in_order_of_state(files: FileTree, names: Sequence[str]) -> list[str]:
    """The shards that each `state.json` lists, in its order; all of them where there is none."""
    listed = []
    for state in (name for name in files.names((".json",)) if PurePosixPath(name).name == "state.json"):
        try:
            content = json.loads(files.read(state, 2**20))
            listed += [str(PurePosixPath(state).parent / entry["filename"]) for entry in content["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("unreadable_file", f"{state} is not what save_to_disk writes: {error}") from error
    if missing := [name for name in listed if name not in names]:
        raise DataError("unreadable_file", f"{files.path.name}: no file {missing[0]!r}, which its state.json lists")
    return listed or list(names)
