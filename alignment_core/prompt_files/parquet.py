"""Prompts in a column of parquet, of which a few bytes may stand for more than a machine holds."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from alignment_core.prompt_files import limits
from alignment_core.prompt_files.columns import column_among
from alignment_core.prompt_files.results import BadRow, PromptsFile, Rows, refused


def parquet_of(file: BinaryIO, column: str | None) -> PromptsFile:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise refused("parquet_unsupported", "parquet needs pyarrow, which is not installed here") from error
    try:
        schema = parquet.read_schema(file)
        found = column_among([field.name for field in schema if _is_text(field.type)], column)
        opened = parquet.ParquetFile(file, read_dictionary=[found])
        _refuse_large(opened.metadata, found)
    except MemoryError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise refused("not_parquet", f"cannot be read as parquet: {error}") from error
    return PromptsFile("parquet", found, _values(opened, found))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    text = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(text) or types.is_large_string(text)


def _refuse_large(metadata: Any, column: str) -> None:
    """A few bytes may unpack to more than a machine holds, so what they say of it is looked at first."""
    if metadata.num_rows > limits.MOST_ROWS:
        raise refused("too_many_rows", f"there are more than {limits.MOST_ROWS:,} rows")
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    chunks = (group.column(index) for group in groups for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
    if size > limits.LARGEST_COLUMN_BYTES:
        raise refused("column_too_large", f"{column!r} unpacks to {size} bytes; at most {limits.LARGEST_COLUMN_BYTES}")


def _values(opened: Any, column: str) -> Rows:
    """Of a dictionary no more is unpacked than a batch names, and that once: a row may repeat a long text a million times."""
    import pyarrow as arrow

    number = 0
    try:
        for batch in opened.iter_batches(batch_size=limits.BATCH_ROWS, columns=[column]):
            values = batch.column(0)
            for text in _unpacked(values) if isinstance(values, arrow.DictionaryArray) else values.to_pylist():
                number += 1
                yield number, text or ""
    except MemoryError:  # which arrow's own is too, and which says nothing of the file's form
        raise
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield number, BadRow(None, "not_parquet", f"what follows row {number} cannot be read: {error}")


def _unpacked(values: Any) -> Iterator[str | None]:
    named = values.indices.unique().drop_null()
    texts = dict(zip(named.to_pylist(), values.dictionary.take(named).to_pylist(), strict=True))
    return (None if place is None else texts[place] for place in values.indices.to_pylist())
