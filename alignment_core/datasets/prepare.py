"""Any form of preference data as one canonical parquet file, with the images in it: what is quick to upload and to read.

Imports no torch, so that it runs on the machine of whoever has the data.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignment_core.datasets.bad_rows import drops, row_error
from alignment_core.datasets.detect import open_lone_table, source_of
from alignment_core.datasets.rows import BadRow, PreferenceRow
from alignment_core.datasets.unpaired import ImageRow
from alignment_core.errors import DataError
from alignment_core.spec.sources import OnBadRow

ROW_GROUP_BYTES = 32 * 2**20
MOST_NAMED = 20

_ABOUT = [("prompt", pa.string()), ("group_id", pa.string())]
_PAIRS = pa.schema(
    [*_ABOUT, ("label", pa.float64()), ("score", pa.float64()), ("chosen", pa.binary()), ("rejected", pa.binary())]
)
_IMAGES = pa.schema([*_ABOUT, ("label", pa.int8()), ("image", pa.binary())])


@dataclass(frozen=True)
class Prepared:
    """How many rows were written, how many left out because nothing is said in them, and which because of an error."""

    kind: str
    format: str
    num_rows: int
    num_left_out: int
    num_dropped: int
    dropped: tuple[str, ...]  # the first of them, each with its reason


def prepare_parquet(
    path: Path, out: Path, columns: Mapping[str, str] | None = None, on_bad_row: OnBadRow = "fail"
) -> Prepared:
    """Write the dataset at `path` to `out`; a table of text finds its images in the folder that it is in.

    Raises `DataError` at the first row with an error, and leaves no file then; with `drop` such rows are left out and named. Rows that preflight warns about because
    they say nothing (no vote, not different) are left out and counted.
    """
    source = source_of(open_lone_table(path), columns)
    counts = {"rows": 0, "left_out": 0, "dropped": 0}
    dropped: list[str] = []

    def usable() -> Iterator[PreferenceRow | ImageRow]:
        for row in source.read(source.annotations()):
            if not isinstance(row, BadRow):
                counts["rows"] += 1
                yield row
            elif row.severity != "error":
                counts["left_out"] += 1
            elif not drops(on_bad_row):
                raise row_error(source, row)
            else:
                counts["dropped"] += 1
                if len(dropped) < MOST_NAMED:
                    dropped.append(f"row {row.number}: {row.message}")

    partial = out.with_name(f".{out.name}.partial")
    try:
        _write(partial, _PAIRS if source.kind == "pairs" else _IMAGES, usable())
        if not counts["rows"]:
            raise DataError("no_usable_rows", f"{path.name}: no usable row; expected at least one")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return Prepared(source.kind, source.format, counts["rows"], counts["left_out"], counts["dropped"], tuple(dropped))


def _write(path: Path, schema: pa.Schema, rows: Iterable[PreferenceRow | ImageRow]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        group: list[dict[str, object]] = []
        size = 0
        for row in rows:
            group.append(_values(row))
            size += sum(map(len, row.images))
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _values(row: PreferenceRow | ImageRow) -> dict[str, object]:
    about = {"prompt": row.prompt, "group_id": row.group_id}
    if isinstance(row, ImageRow):
        return {**about, "label": int(row.liked), "image": row.image}
    return {**about, "label": row.label, "score": row.score, "chosen": row.chosen, "rejected": row.rejected}
