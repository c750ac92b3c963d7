"""What is written to be browsed is read again page by page, by ranges of a bounded size."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from alignment_core import browsing
from alignment_core.browsing import BrowsedRow, BrowsingReader, BrowsingWriter, DamagedBrowsing, RowImage, RowNote

ROWS = 4_500  # more than one step of the footer


def note(code: str, row: int) -> RowNote:
    return RowNote(code=code, severity="warning", message=f"{code} in {row}")


def notes_of(row: int) -> list[RowNote]:
    return [note("even", row)] * (row % 2 == 0) + [note("rare", row)] * (row % 1000 == 999)


class Ranges:
    """The bytes of a file, and what of it was read."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.read: list[int] = []

    def __call__(self, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= len(self.data)
        self.read.append(end - start)
        return self.data[start:end]

    def reader(self) -> BrowsingReader:
        return BrowsingReader(len(self.data), self)


def written(path: Path, num: int) -> Ranges:
    with BrowsingWriter(path) as writer:
        for row in range(1, num + 1):
            image = RowImage(width=row, height=1)
            shown = {"chosen": b"jpeg of %d" % row} if row % 3 == 0 else {}
            one = BrowsedRow(row=row, is_usable=True, prompt=f"line\n{row}\u2028<b>", images={"chosen": image})
            writer.add(one, shown)  # pyright: ignore[reportArgumentType]
        writer.finish(notes_of)
    return Ranges(path)


@pytest.fixture(scope="module")
def ranges(tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    return written(tmp_path_factory.mktemp("browsing") / "file", ROWS)


def walk(reader: BrowsingReader, problem: str | None, limit: int) -> list[BrowsedRow]:
    found: list[BrowsedRow] = []
    has_more = True
    while has_more:
        page, has_more = reader.rows(problem, found[-1].row if found else 0, limit)
        assert len(page) == limit or not has_more
        found += page
    return found


@pytest.mark.parametrize("limit", [1, 31, 32, 33, 100, 1000])
def test_pages_of_any_size_have_every_row_once(ranges: Ranges, limit: int) -> None:
    reader = ranges.reader()
    expected = list(range(1, ROWS + 1)) if limit > 1 else []
    if expected:
        assert [one.row for one in walk(reader, None, limit)] == expected
    assert [one.row for one in walk(reader, "rare", limit)] == [999, 1999, 2999, 3999]
    assert (reader.num_rows, reader.num_shown, reader.count("even"), reader.count("odd")) == (ROWS, 1500, 2250, 0)


def test_a_list_of_a_problem_has_its_rows_alone_and_each_says_all_that_is_wrong(ranges: Ranges) -> None:
    rows = walk(ranges.reader(), "even", 100)
    assert [one.row for one in rows] == list(range(2, ROWS + 1, 2))
    assert ranges.reader().rows("odd", 0, 10) == ([], False)
    found = ranges.reader().row(2998)
    assert found is not None
    assert found.problems == [note("even", 2998)]
    both = written_row(ranges, 1999)
    assert both.problems == [note("rare", 1999)]


def written_row(ranges: Ranges, row: int) -> BrowsedRow:
    found = ranges.reader().row(row)
    assert found is not None
    return found


@pytest.mark.parametrize("row", [1, 32, 33, 4096, 4097, 4500])
def test_a_row_comes_back_as_it_was_with_its_thumbnail(ranges: Ranges, row: int) -> None:
    found, reader = written_row(ranges, row), ranges.reader()
    assert found.prompt == f"line\n{row}\u2028<b>"
    assert reader.thumbnail(found.images["chosen"]) == (b"jpeg of %d" % row if row % 3 == 0 else None)


def test_what_is_beyond_the_last_row_is_empty(ranges: Ranges) -> None:
    reader = ranges.reader()
    assert reader.row(ROWS + 1) is None
    assert reader.row(0) is None
    assert reader.rows(None, ROWS, 10) == ([], False)
    assert reader.rows(None, 10**30, 10) == ([], False)


def test_no_page_reads_much_of_the_file(ranges: Ranges) -> None:
    for after in (0, 2250, 4480):
        ranges.read.clear()
        ranges.reader().rows(None, after, 20)
        assert len(ranges.read) <= 4
        assert sum(ranges.read) < 32_000
    assert len(ranges.data) > 4 * 32_000


@pytest.mark.parametrize("num", [0, 1])
def test_a_file_of_few_rows_is_read_as_well(tmp_path: Path, num: int) -> None:
    reader = written(tmp_path / "file", num).reader()
    assert [one.row for one in walk(reader, None, 10)] == list(range(1, num + 1))
    assert reader.rows("even", 0, 10) == ([], False)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_told_as_such(tmp_path: Path, seed: int) -> None:
    """Cut, with bytes in its place that were not written, or empty: rows, or one kind of error."""
    draw, found = random.Random(seed), written(tmp_path / "file", 100)
    data = bytearray(found.data)
    if seed % 3 == 0:
        found.data = bytes(data[: draw.randrange(len(data)) if seed else 0])
    else:
        at = len(data) - 1 - int(draw.random() ** 3 * len(data))
        data[at : at + 8] = draw.randbytes(min(8, len(data) - at)) if seed % 3 == 1 else bytes(min(8, len(data) - at))
        found.data = bytes(data)
    try:
        rows = walk(found.reader(), None, 20)
    except DamagedBrowsing:
        return
    assert len(found.data) == len(data)
    assert all(isinstance(row, BrowsedRow) for row in rows)


def test_no_page_unpacks_to_more_than_one_holds(ranges: Ranges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "LARGEST_PAGE_BYTES", 1000)
    with pytest.raises(DamagedBrowsing, match="larger than any is"):
        ranges.reader().rows(None, 0, 5)


def bytes_under(folder: Path) -> int:
    """What the open files of this process hold that lie, or lay, in a folder: one that is unlinked at once is in no listing."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found += link.stat().st_size
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
def test_what_waits_for_the_end_of_the_check_takes_little_more_than_the_file_will(tmp_path: Path) -> None:
    words = [f"a {color} {shape}" for color in ("red", "blue", "green") for shape in ("circle", "square", "star")]
    told = 0
    with BrowsingWriter(tmp_path / "file") as writer:
        for row in range(1, 6_001):
            one = BrowsedRow(row=row, is_usable=True, prompt=" beside ".join(random.Random(row).choices(words, k=30)))
            told += len(one.model_dump_json())
            writer.add(one, {})
        waits = bytes_under(tmp_path)
        writer.finish(lambda _: [])
    written_bytes = (tmp_path / "file").stat().st_size
    assert 0 < waits < 1.1 * written_bytes < told / 2
