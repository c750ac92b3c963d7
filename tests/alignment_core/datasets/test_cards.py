"""What people are shown of rows is made in the pass that checks them: each image is decoded once."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alignment_core.browsing import BrowsedRow, BrowsingReader
from alignment_core.datasets import cards, preflight
from alignment_core.datasets.preflight import check_and_show, check_preferences
from alignment_core.reports import DatasetReport
from alignment_core.spec.sources import OnBadRow
from tests.alignment_core.datasets.builders import image_bytes, rows, write_jsonl_folder, write_parquet


def shown(
    path: Path, out: Path, on_bad_row: OnBadRow = "fail"
) -> tuple[DatasetReport, list[BrowsedRow], BrowsingReader]:
    report = check_and_show(path, None, on_bad_row, out, "my pairs.parquet")
    data = out.read_bytes()
    reader = BrowsingReader(len(data), lambda start, end: data[start:end])
    return report, reader.rows(None, 0, 1000)[0], reader


def test_the_report_is_the_same_and_no_image_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", rows(6, num_prompts=3))
    decoded: Counter[bytes] = Counter()
    decode = cards.decode_image

    def counted(data: bytes) -> Image.Image:
        decoded[data] += 1
        return decode(data)

    monkeypatch.setattr(cards, "decode_image", counted)
    report, found, _ = shown(path, tmp_path / "out")
    assert (len(decoded), set(decoded.values())) == (12, {1})
    assert report == check_preferences(path)
    assert [one.row for one in found] == [1, 2, 3, 4, 5, 6]
    assert not any(one.problems for one in found)


def test_a_thumbnail_has_a_longer_side_of_160_and_never_grows(tmp_path: Path) -> None:
    values = rows(2)
    values[0]["chosen"], values[0]["rejected"] = image_bytes(1, 640, 320), image_bytes(2, 50, 400, "JPEG")
    _, found, reader = shown(write_parquet(tmp_path / "pairs.parquet", values), tmp_path / "out")
    sizes = {}
    for side, image in [*found[0].images.items(), ("small", found[1].images["chosen"])]:
        data = reader.thumbnail(image)
        assert data is not None
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            sizes[side] = picture.size
    assert sizes == {"chosen": (160, 80), "rejected": (20, 160), "small": (24, 24)}
    assert (found[0].images["chosen"].width, found[0].images["chosen"].height) == (640, 320)


def test_a_row_that_cannot_be_used_shows_what_can_be_seen_of_it_and_the_owners_name_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "stored as this"
    write_jsonl_folder(folder, rows(3))
    (folder / "images" / "2-rejected.png").write_bytes(b"no picture")
    (folder / "images" / "3-chosen.png").unlink()
    for number, on_bad_row in enumerate(("fail", "drop")):
        report, found, _ = shown(folder, tmp_path / f"out-{number}", on_bad_row)
        assert report.is_usable == (on_bad_row == "drop")
        assert [one.is_usable for one in found] == [True, False, False]
        assert list(found[1].images) == ["chosen"]
        assert (found[1].prompt, found[1].problems[0].code) == ("prompt 1", "undecodable_image")
        assert found[2].problems[0].code == "missing_image"
        assert folder.name not in found[2].problems[0].message


def test_later_rows_keep_thumbnails_only_where_the_report_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "ROWS_SHOWN", 3)
    values: list[dict[str, Any]] = rows(8)
    values[5] = dict(values[4])
    _, found, reader = shown(write_parquet(tmp_path / "pairs.parquet", values), tmp_path / "out")
    assert [one.row for one in found if one.images["chosen"].thumbnail] == [1, 2, 3, 6]
    assert reader.num_shown == 4
    assert reader.rows("duplicate_rows", 0, 10)[0][0].problems[0].message == "row 6 repeats row 5; repeats count more"


def test_single_images_are_shown_with_their_likes(tmp_path: Path) -> None:
    values = [{"prompt": "p", "image": image_bytes(one), "label": one % 2} for one in range(3)]
    _, found, _ = shown(write_parquet(tmp_path / "pairs.parquet", values), tmp_path / "out")
    assert [(one.liked, list(one.images)) for one in found] == [
        (False, ["image"]),
        (True, ["image"]),
        (False, ["image"]),
    ]


def test_a_check_that_nobody_will_browse_makes_no_thumbnail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", rows(3))
    monkeypatch.setattr(cards, "thumbnail_of", lambda _: pytest.fail("made one"))
    assert preflight.check_preferences(path).num_usable_rows == 3
