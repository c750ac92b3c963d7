"""A file that is read by ranges gives what the whole file gives, and takes no more of the disk than it may."""

import hashlib
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from alignment_core.datasets import in_parts
from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.by_offset import Stretch
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.in_parts import FileInParts, file_in_parts
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.preflight import check_rows
from alignment_core.datasets.preparation import Preparation
from alignment_core.datasets.remembered import state_of
from alignment_core.datasets.rows import PreferenceRow
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import Shelves
from alignment_core.errors import AlignmentError, DataError
from alignment_core.load.pairs import Located, contents_of, usable
from alignment_core.spec.places import PARTS_HASHES, PARTS_NOTE, PartsNote
from tests.alignment_core.datasets.builders import (
    Encoders,
    drain,
    image_bytes,
    rows,
    write_jsonl_folder,
    write_parquet,
    zip_folder,
)

BLOCK = 1024


class CopiedRanges:
    """Ranges of a file of this machine; watches what lies beside the answers."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked: list[tuple[int, int]] = []
        self.most_bytes = 0

    def get(self, start: int, end: int, path: Path) -> None:
        self.asked.append((start, end))
        path.write_bytes(self.file.read_bytes()[start:end])
        held = [
            one.stat().st_size
            for one in path.parent.rglob("*")
            if one.is_file() and one.name not in (PARTS_NOTE, PARTS_HASHES)
        ]
        self.most_bytes = max(self.most_bytes, sum(held))


Form = Callable[[Path], Path]
NewParts = Callable[..., tuple[Path, CopiedRanges]]


@pytest.fixture
def in_parts_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewParts:
    def of(file: Path, disk_bytes: int = 64 * BLOCK) -> tuple[Path, CopiedRanges]:
        folder, data, ranges = tmp_path / "parts", file.read_bytes(), CopiedRanges(file)
        folder.mkdir()
        note = PartsNote(
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            block_bytes=BLOCK,
            disk_bytes=disk_bytes,
            exchange=str(tmp_path / "exchange"),
        )
        (folder / PARTS_NOTE).write_text(note.model_dump_json())
        blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
        (folder / PARTS_HASHES).write_bytes(b"".join(hashlib.sha256(block).digest() for block in blocks))
        monkeypatch.setattr(in_parts, "AskedRanges", lambda exchange: ranges)
        file_in_parts.cache_clear()
        return folder, ranges

    return of


def all_rows(path: Path) -> list[PreferenceRow]:
    source = open_preferences(path)
    return list(source.read(read_annotations(source, ties="keep")))  # pyright: ignore[reportReturnType] - none is bad


def as_parquet(folder: Path) -> Path:
    return write_parquet(folder / "pairs.parquet", rows(9))


def as_zip(folder: Path) -> Path:
    return zip_folder(write_jsonl_folder(folder / "pairs", rows(9)), folder / "pairs.zip")


def as_zipped_parquet(folder: Path) -> Path:
    return stored(folder, "train.parquet", as_parquet(folder).read_bytes())


def as_zipped_arrow(folder: Path) -> Path:
    table = pa.Table.from_pylist(rows(9))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return stored(folder, "data.arrow", sink.getvalue().to_pybytes())


def stored(folder: Path, name: str, content: bytes) -> Path:

    with zipfile.ZipFile(folder / "pairs.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, content)
    return folder / "pairs.zip"


FORMS = (as_parquet, as_zip, as_zipped_parquet, as_zipped_arrow)


@pytest.mark.parametrize("form", FORMS)
def test_the_rows_are_those_of_the_whole_file_and_so_is_the_report(
    form: Form, tmp_path: Path, in_parts_of: NewParts
) -> None:
    file = form(tmp_path)
    folder, ranges = in_parts_of(file)
    assert all_rows(folder) == all_rows(file)
    whole, parts = check_rows(file), check_rows(folder)
    assert parts == whole
    assert len(ranges.asked) > 1


@pytest.mark.parametrize("form", FORMS)
def test_no_more_lies_on_the_disk_than_may(form: Form, tmp_path: Path, in_parts_of: NewParts) -> None:
    file = form(tmp_path)
    limit = 8 * BLOCK
    folder, ranges = in_parts_of(file, limit)
    all_rows(folder)
    assert file.stat().st_size > 3 * limit
    assert 0 < ranges.most_bytes <= limit


def test_annotations_of_parquet_do_not_touch_the_images(tmp_path: Path, in_parts_of: NewParts) -> None:
    big = [{**row, "chosen": image_bytes(index, 96, 96)} for index, row in enumerate(rows(9))]
    folder, ranges = in_parts_of(write_parquet(tmp_path / "pairs.parquet", big), 10**6)
    num = len(list(open_preferences(folder).annotations()))
    read = sum(end - start for start, end in ranges.asked)
    assert num == 9
    assert read < (tmp_path / "pairs.parquet").stat().st_size / 3


def test_who_reads_on_gets_several_blocks_at_once_and_who_jumps_gets_one(tmp_path: Path, in_parts_of: NewParts) -> None:
    (file := tmp_path / "data").write_bytes(bytes(i % 251 for i in range(40 * BLOCK)))
    folder, ranges = in_parts_of(file)
    content = file_in_parts(folder).content
    content.read_at(20 * BLOCK, 1)
    assert ranges.asked == [(20 * BLOCK, 21 * BLOCK)]
    with content.open() as handle:
        assert handle.read() == file.read_bytes()
    assert len(ranges.asked) < 10


def test_bytes_that_are_not_those_that_were_stored_are_refused(tmp_path: Path, in_parts_of: NewParts) -> None:
    file = as_parquet(tmp_path)
    folder, _ = in_parts_of(file)
    file.write_bytes(file.read_bytes()[:-9] + b"x" + file.read_bytes()[-8:])
    with pytest.raises(AlignmentError) as caught:
        all_rows(folder)
    assert (caught.value.code, caught.value.retryable) == ("object_altered", True)


def test_the_same_bytes_have_the_same_state_on_every_machine(tmp_path: Path, in_parts_of: NewParts) -> None:
    folder, _ = in_parts_of(as_parquet(tmp_path))
    state = state_of(folder, None, "fail")
    elsewhere = folder.rename(tmp_path / "elsewhere")
    assert state_of(elsewhere, None, "fail") == state
    assert state_of(elsewhere, {"prompt": "caption"}, "fail") != state


def test_a_compressed_shard_larger_than_the_disk_may_hold_is_refused_with_what_helps(
    tmp_path: Path, in_parts_of: NewParts
) -> None:

    with zipfile.ZipFile(tmp_path / "pairs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.parquet", as_parquet(tmp_path).read_bytes())
    folder, _ = in_parts_of(tmp_path / "pairs.zip", 8 * BLOCK)
    with pytest.raises(DataError, match="compressed and too large") as caught:
        all_rows(folder)
    assert "without compression" in (caught.value.hint or "")


def test_a_damaged_stream_of_arrow_is_unreadable(tmp_path: Path, in_parts_of: NewParts) -> None:

    whole = zipfile.ZipFile(as_zipped_arrow(tmp_path)).read("data.arrow")
    (tmp_path / "pairs.zip").unlink()
    folder, _ = in_parts_of(stored(tmp_path, "data.arrow", whole[: len(whole) // 2]))
    with pytest.raises(DataError) as caught:
        all_rows(folder)
    assert caught.value.code == "unreadable_file"


def test_threads_that_read_at_once_read_the_same(tmp_path: Path, in_parts_of: NewParts) -> None:
    (file := tmp_path / "data").write_bytes(bytes(i % 251 for i in range(64 * BLOCK)))
    folder, _ = in_parts_of(file, 4 * BLOCK)
    content: Stretch = file_in_parts(folder).content
    found: list[bytes] = []

    def read() -> None:
        with content.open() as handle:
            found.append(handle.read())

    threads = [threading.Thread(target=read) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [file.read_bytes()] * 3
    assert isinstance(file_in_parts(folder), FileInParts)


def test_a_second_machine_reads_no_image_of_what_is_encoded(tmp_path: Path, in_parts_of: NewParts) -> None:
    pairs = [{**row, "chosen": image_bytes(index, 96, 96)} for index, row in enumerate(rows(9))]
    file = write_parquet(tmp_path / "pairs.parquet", pairs)
    folder, ranges = in_parts_of(file, 2 * file.stat().st_size)
    for machine, images in (("first", 18), ("second", 0)):
        encoders, dataset, cache_dir = Encoders(), Located(folder, None), tmp_path / machine
        file_in_parts.cache_clear()
        ranges.asked.clear()
        shelves = Shelves(cache_dir / "shards", FolderStore(tmp_path / "store"))
        usable(dataset, cache_dir, shelves.notes)
        source = open_preferences(folder)
        prepared = PreferencePairs.prepare(
            source,
            read_annotations(source, ties="keep"),
            Preparation(
                encode_images=encoders.encode_images,
                encode_prompts=encoders.encode_prompts,
                image_fingerprint="vae",
                prompt_fingerprint="clip",
                resolution=16,
                crop="center",
                horizontal_flip=False,
                cache_dir=cache_dir,
                batch_size=4,
                shelves=shelves,
                contents=contents_of(dataset, cache_dir, shelves),
            ),
            joint=True,
        )
        _, made = drain(prepared)
        assert len(made) == 9
        shelves.settle()
        assert encoders.num_images == images
    assert sum(end - start for start, end in ranges.asked) < file.stat().st_size / 3


def test_a_note_that_was_damaged_in_the_store_is_none(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    Notes(tmp_path / "first", store).keep("a" * 64, b"known")
    assert Notes(tmp_path / "second", store).recall("a" * 64) == b"known"
    assert Notes(tmp_path / "second", store).recall("b" * 64) is None
    next((tmp_path / "store").rglob("*.safetensors")).write_bytes(b"other")
    assert Notes(tmp_path / "second", store).recall("a" * 64) is None
