"""What images hash to is remembered of these files and these rows, and of no others."""

from dataclasses import replace
from pathlib import Path

from alignment_core.datasets.contents import Contents
from alignment_core.datasets.rows import Annotation

ROWS = [
    Annotation(number, "a red circle", f"{number}w.png", f"{number}l.png", 1.0, None, "one") for number in (1, 2, 5)
]
DIGESTS = [(bytes([number]) * 32, bytes([number + 100]) * 32) for number in (1, 2, 5)]


def test_digests_come_back_row_by_row(tmp_path: Path) -> None:
    Contents(tmp_path, "state").keep(ROWS, DIGESTS)
    assert Contents(tmp_path, "state").recalled(ROWS) == DIGESTS


def test_other_files_rows_or_places_are_not_known(tmp_path: Path) -> None:
    Contents(tmp_path, "state").keep(ROWS, DIGESTS)
    assert Contents(tmp_path, "changed").recalled(ROWS) is None
    assert Contents(tmp_path, "state").recalled(ROWS[:2]) is None
    assert Contents(tmp_path, "state").recalled([*ROWS[:2], replace(ROWS[2], chosen="other.png")]) is None


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    Contents(tmp_path, "state").keep(ROWS, DIGESTS)
    next(tmp_path.iterdir()).write_bytes(b"\0" * 50)
    assert Contents(tmp_path, "state").recalled(ROWS) is None
