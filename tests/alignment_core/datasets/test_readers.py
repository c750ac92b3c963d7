import codecs
import json
import shutil
import unicodedata
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.rows import Annotation, BadRow, PreferenceRow, PreferenceSource
from alignment_core.datasets.values import default_group_id
from alignment_core.errors import DataError
from tests.alignment_core.datasets.builders import (
    Row,
    image_bytes,
    pick_a_pic_row,
    rows,
    write_jsonl_folder,
    write_parquet,
    zip_folder,
)


def _read(source: PreferenceSource) -> list[PreferenceRow | BadRow]:
    return list(source.read(source.annotations()))


def _written(folder: Path, kind: str, values: list[Row]) -> Path:
    match kind:
        case "parquet":
            return write_parquet(folder / "pairs.parquet", values)
        case "shards":
            (folder / "shards").mkdir()
            write_parquet(folder / "shards" / "0.parquet", values[:4])
            write_parquet(folder / "shards" / "1.parquet", values[4:])
            return folder / "shards"
        case "structs":
            structs: list[Row] = [
                {
                    **row,
                    "chosen": {"bytes": row["chosen"], "path": "a.png"},
                    "rejected": {"bytes": row["rejected"], "path": None},
                }
                for row in values
            ]
            return write_parquet(folder / "structs.parquet", structs)
        case "folder":
            return write_jsonl_folder(folder / "folder", values)
        case "zip":
            return zip_folder(write_jsonl_folder(folder / "for-zip", values), folder / "pairs.zip")
        case _:
            return zip_folder(write_jsonl_folder(folder / "deep", values), folder / "deep.zip", "a/b/")


KINDS = ["parquet", "shards", "structs", "folder", "zip", "zip with a top folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    values = [
        {**row, "label": [1.0, 0.7, 0.5][index % 3], "score": float(index), "group_id": f"group {index % 4}"}
        for index, row in enumerate(rows(10))
    ]
    read = _read(open_preferences(_written(tmp_path, kind, values)))
    expected = [PreferenceRow(number=number, **value) for number, value in enumerate(values, 1)]  # pyright: ignore[reportArgumentType]
    assert read == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_has_its_default(tmp_path: Path, kind: str) -> None:
    read = _read(open_preferences(_written(tmp_path, kind, rows(6))))
    for row in read:
        assert isinstance(row, PreferenceRow)
        assert (row.label, row.score, row.group_id) == (1.0, None, default_group_id(row.prompt))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.integers(0, 9), min_size=1))
def test_any_ascending_selection_can_be_read(tmp_path: Path, kind: str, chosen: set[int]) -> None:
    folder = tmp_path / "shared"
    if not folder.exists():
        folder.mkdir()
        _written(folder, kind, rows(10))
    path = next(entry for entry in folder.iterdir() if entry.name not in {"for-zip", "deep"})
    source = open_preferences(path)
    annotations = list(source.annotations())
    selected = [annotations[index] for index in sorted(chosen)]
    read = list(source.read(selected))
    assert [row.number for row in read] == [index + 1 for index in sorted(chosen)]
    for row in read:
        assert isinstance(row, PreferenceRow)
        assert row.chosen == image_bytes(2 * (row.number - 1))
        assert row.rejected == image_bytes(2 * (row.number - 1) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_below_half_swaps_the_images(tmp_path: Path, kind: str) -> None:
    values = [{**row, "label": 0.25} for row in rows(5)]
    for index, row in enumerate(_read(open_preferences(_written(tmp_path, kind, values)))):
        assert isinstance(row, PreferenceRow)
        assert (row.label, row.swapped) == (0.75, True)
        assert row.chosen == image_bytes(2 * index + 1)
        assert row.rejected == image_bytes(2 * index)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"label": 1.5}, "invalid_label", r"label is 1\.5 \(float\); expected a number in \[0, 1\]"),
        ({"label": -0.1}, "invalid_label", r"\[0, 1\]"),
        ({"label": "yes"}, "invalid_label", r"label is 'yes' \(str\)"),
        ({"label": True}, "invalid_label", r"label is True \(bool\)"),
        ({"score": -1.0}, "invalid_score", "at least 0"),
        ({"score": "high"}, "invalid_score", "finite number"),
        ({"prompt": None}, "invalid_prompt", "expected a string"),
        ({"prompt": 7}, "invalid_prompt", r"prompt is 7 \(int\)"),
        ({"prompt": "x" * 20_001}, "invalid_prompt", "20001 characters"),
        ({"group_id": ""}, "invalid_group_id", "1 to 1000"),
        ({"group_id": 1.5}, "invalid_group_id", "string or an integer"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_a_wrong_value_makes_a_bad_row_that_names_its_column(
    tmp_path: Path, kind: str, changes: Row, code: str, words: str
) -> None:
    values = [{**row, **changes} for row in rows(2)]
    source = open_preferences(_written(tmp_path, kind, values))
    assert [(row.number, row.code, row.severity) for row in _read(source) if isinstance(row, BadRow)] == [
        (1, code, "error"),
        (2, code, "error"),
    ]
    with pytest.raises(DataError, match=words) as caught:
        read_annotations(source, ties="drop")
    assert f"{source.path.name}, row 1: " in caught.value.message


def test_nan_and_infinity_are_no_labels(tmp_path: Path) -> None:
    values = [{**row, "label": label} for row, label in zip(rows(2), [float("nan"), float("inf")], strict=True)]
    for kind in ("parquet", "folder"):
        read = _read(open_preferences(_written(tmp_path, kind, values)))
        assert [row.code for row in read if isinstance(row, BadRow)] == ["invalid_label"] * 2


def test_an_integer_group_is_accepted(tmp_path: Path) -> None:
    read = _read(open_preferences(_written(tmp_path, "parquet", [{**row, "group_id": 12} for row in rows(1)])))
    assert isinstance(read[0], PreferenceRow)
    assert read[0].group_id == "12"


# --- parquet -------------------------------------------------------------------------------------------------------


def test_an_empty_image_cell_is_a_bad_row(tmp_path: Path) -> None:
    values = rows(5)
    values[1]["rejected"] = None
    values[3]["chosen"] = b""
    read = _read(open_preferences(write_parquet(tmp_path / "a.parquet", values)))
    assert [(row.number, row.code) for row in read if isinstance(row, BadRow)] == [
        (2, "missing_image"),
        (4, "missing_image"),
    ]


def test_a_path_in_a_parquet_file_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(image_bytes(0))
    values: list[Row] = [
        {
            "prompt": "",
            "chosen": {"bytes": None, "path": "secret.png"},
            "rejected": {"bytes": None, "path": str(tmp_path / "secret.png")},
        }
    ]
    (read,) = _read(open_preferences(write_parquet(tmp_path / "a.parquet", values)))
    assert isinstance(read, BadRow)
    assert read.code == "missing_image"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"prompt": "p", "chosen": image_bytes(0)}])
    with pytest.raises(DataError, match=r"a\.parquet: no column rejected; expected chosen, prompt, rejected") as caught:
        open_preferences(path)
    assert caught.value.code == "missing_column"


def test_a_missing_column_in_a_later_shard_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", rows(2))
    write_parquet(tmp_path / "1.parquet", [{"prompt": "p", "chosen": image_bytes(0)}])
    with pytest.raises(DataError, match=r"1\.parquet: no column rejected"):
        open_preferences(tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows(20))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.parquet: not a readable parquet") as caught:
        _read(open_preferences(path))
    assert caught.value.code == "unreadable_file"


def test_annotations_do_not_touch_images(tmp_path: Path) -> None:
    """The image columns are overwritten with garbage: a reader that loaded them would fail."""
    path = write_parquet(tmp_path / "a.parquet", rows(3), row_group_size=3)
    group = pq.read_metadata(path).row_group(0)
    data = bytearray(path.read_bytes())
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema in {"chosen", "rejected"}:
            start = column.dictionary_page_offset or column.data_page_offset
            data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(data))
    source = open_preferences(path)
    assert [row.number for row in source.annotations()] == [1, 2, 3]
    with pytest.raises(DataError, match=r"a\.parquet"):
        _read(source)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["p"], ["q"], [b"1"], [b"2"]], names=["prompt", "prompt", "chosen", "rejected"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column prompt is there more than once"):
        open_preferences(tmp_path / "a.parquet")


def test_a_huge_prompt_repeated_for_free_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Dictionary encoding makes a few MB of file into tens of GB of text, if it is unfolded at once."""
    prompts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 20_000_000]))
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([image_bytes(0)]))
    table = pa.table({"prompt": prompts, "chosen": images, "rejected": images})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    source = open_preferences(tmp_path / "a.parquet")
    codes = {row.code for row, _ in zip(source.annotations(), range(50), strict=False) if isinstance(row, BadRow)}
    assert codes == {"invalid_prompt"}


# --- Pick-a-Pic ----------------------------------------------------------------------------------------------------


def test_pick_a_pic_labels(tmp_path: Path) -> None:
    values = [pick_a_pic_row(0, 1.0), pick_a_pic_row(1, 0.0), pick_a_pic_row(2, 0.5)]
    source = open_preferences(write_parquet(tmp_path / "train.parquet", values))
    first_wins, second_wins, tie = _read(source)
    assert source.format == "pick_a_pic"
    assert isinstance(first_wins, PreferenceRow)
    assert isinstance(second_wins, PreferenceRow)
    assert isinstance(tie, PreferenceRow)
    assert (first_wins.chosen, first_wins.label, first_wins.swapped) == (values[0]["jpg_0"], 1.0, False)
    assert (second_wins.chosen, second_wins.label, second_wins.swapped) == (values[1]["jpg_1"], 1.0, True)
    assert (tie.chosen, tie.label, tie.swapped) == (values[2]["jpg_0"], 0.5, False)
    assert first_wins.prompt == "caption 0"
    assert source.unread_columns() == []


def test_pick_a_pic_rows_without_a_preference_are_left_out_with_a_warning(tmp_path: Path) -> None:
    values = [
        pick_a_pic_row(0, 1.0),
        pick_a_pic_row(1, 0.0, has_label=False),
        pick_a_pic_row(2, 1.0, are_different=False),
    ]
    source = open_preferences(write_parquet(tmp_path / "train.parquet", values))
    assert [(row.number, row.code, row.severity) for row in _read(source) if isinstance(row, BadRow)] == [
        (2, "unlabeled_row", "warning"),
        (3, "images_not_different", "warning"),
    ]
    assert [row.number for row in read_annotations(source, ties="drop")] == [1]


@pytest.mark.parametrize("changes", [{"label_0": None}, {"label_1": 0.9}, {"label_0": 3.0, "label_1": -2.0}])
def test_pick_a_pic_labels_that_make_no_sense_are_errors(tmp_path: Path, changes: Row) -> None:
    values = [pick_a_pic_row(0, 1.0), pick_a_pic_row(1, 1.0, **changes)]
    read = _read(open_preferences(write_parquet(tmp_path / "train.parquet", values)))
    assert [(row.number, row.code) for row in read if isinstance(row, BadRow)] == [(2, "invalid_label")]


def test_pick_a_pic_without_its_optional_columns(tmp_path: Path) -> None:
    kept = ("caption", "jpg_0", "jpg_1", "label_0")
    values = [{name: pick_a_pic_row(0, 0.0)[name] for name in kept}]
    (row,) = _read(open_preferences(write_parquet(tmp_path / "train.parquet", values)))
    assert isinstance(row, PreferenceRow)
    assert row.swapped


# --- jsonl ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json"),
        (b"[1, 2]", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"prompt": "p", "chosen": "images/1-chosen.png"}', "missing_column"),
        (b'{"prompt": "p", "chosen": 1, "rejected": "images/1-chosen.png"}', "missing_image"),
        (b'{"prompt": "p", "chosen": "images/none.png", "rejected": "images/1-chosen.png"}', "missing_image"),
        (b'{"prompt": "p", "chosen": "images", "rejected": "images/1-chosen.png"}', "missing_image"),
        (b'{"prompt": "p", "chosen": "../x.png", "rejected": "images/1-chosen.png"}', "unsafe_path"),
        (b'{"prompt": "p", "chosen": "/etc/passwd", "rejected": "images/1-chosen.png"}', "unsafe_path"),
        (b'{"prompt": "p", "chosen": "images/../../x.png", "rejected": "images/1-chosen.png"}', "unsafe_path"),
        (b'{"prompt": "p", "chosen": "C:\\\\x.png", "rejected": "images/1-chosen.png"}', "unsafe_path"),
        (b'{"prompt": "p", "chosen": "a\\u0000b", "rejected": "images/1-chosen.png"}', "unsafe_path"),
        (b'{"prompt": "\\ud83d", "chosen": "images/1-chosen.png", "rejected": "x.png"}', "invalid_prompt"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_line_is_a_bad_row(tmp_path: Path, line: bytes, code: str, zipped: bool) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(0))
    folder = write_jsonl_folder(tmp_path / "data", rows(2))
    good = (folder / "pairs.jsonl").read_bytes().splitlines()
    (folder / "pairs.jsonl").write_bytes(b"\n".join([good[0], b"", line, good[1]]))
    source = open_preferences(zip_folder(folder, tmp_path / "data.zip") if zipped else folder)
    read = _read(source)
    assert [(row.number, row.code) for row in read if isinstance(row, BadRow)] == [(2, code)]
    assert [row.number for row in read] == [1, 2, 3]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(2))
    secret = tmp_path / "secret.png"
    secret.write_bytes(image_bytes(0))
    (folder / "images" / "1-chosen.png").unlink()
    (folder / "images" / "1-chosen.png").symlink_to(secret)
    first, second = _read(open_preferences(folder))
    assert isinstance(first, BadRow)
    assert first.code == "unsafe_path"
    assert isinstance(second, PreferenceRow)


def test_a_link_in_a_circle_is_a_missing_image(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(1))
    image = folder / "images" / "1-chosen.png"
    image.unlink()
    image.symlink_to(image)
    (row,) = _read(open_preferences(folder))
    assert isinstance(row, BadRow)
    assert row.code == "missing_image"


def test_several_jsonl_files_are_counted_on(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(3))
    shutil.copy(folder / "pairs.jsonl", folder / "z.jsonl")
    assert [row.number for row in open_preferences(folder).annotations()] == [1, 2, 3, 4, 5, 6]


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(1))
    (folder / "pairs.jsonl").write_bytes(b'{"prompt": "' + b"x" * 2**21)
    with pytest.raises(DataError, match="lines of at most"):
        _read(open_preferences(folder))


@pytest.mark.parametrize("kind", ["parquet", "folder", "zip"])
def test_misspelt_columns_are_known(tmp_path: Path, kind: str) -> None:
    values = [{**row, "lable": 0.9} for row in rows(2)]
    assert open_preferences(_written(tmp_path, kind, values)).unread_columns() == ["lable"]


# --- which format it is --------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such file") as caught:
        open_preferences(tmp_path / "gone.parquet")
    assert caught.value.code == "missing_file"


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x1f\x8b\x08", b'{"prompt": "p"}\n', b"PAR1", b"PK\x03\x04"])
def test_an_unknown_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="data") as caught:
        open_preferences(path)
    assert caught.value.code in {"unknown_format", "unreadable_file"}


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.zip", rows(1))
    assert open_preferences(path).format == "parquet"


def test_an_empty_folder_and_a_mixed_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.parquet, .*\*\.jsonl"):
        open_preferences(tmp_path)
    write_parquet(tmp_path / "a.parquet", rows(1))
    (tmp_path / "a.jsonl").write_text(json.dumps({}))
    with pytest.raises(DataError, match="expected one kind"):
        open_preferences(tmp_path)


# --- the rows of a run ---------------------------------------------------------------------------------------------


def test_ties_are_dropped_or_kept(tmp_path: Path) -> None:
    values = [{**row, "label": label} for row, label in zip(rows(3), [1.0, 0.5, 0.6], strict=True)]
    source = open_preferences(write_parquet(tmp_path / "a.parquet", values))
    assert [row.number for row in read_annotations(source, ties="drop")] == [1, 3]
    assert [row.number for row in read_annotations(source, ties="keep")] == [1, 2, 3]


def test_a_dataset_of_ties_has_nothing_to_train_on(tmp_path: Path) -> None:
    source = open_preferences(write_parquet(tmp_path / "a.parquet", [{**row, "label": 0.5} for row in rows(3)]))
    with pytest.raises(DataError, match="no row with a preference") as caught:
        read_annotations(source, ties="drop")
    assert caught.value.code == "no_usable_rows"


def test_annotations_are_small(tmp_path: Path) -> None:
    source = open_preferences(write_parquet(tmp_path / "a.parquet", rows(1)))
    (row,) = source.annotations()
    assert isinstance(row, Annotation)
    assert (row.chosen, row.rejected) == ("chosen", "rejected")


def test_a_parquet_file_that_grows_a_thousandfold_is_refused_by_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    table = pa.table({"prompt": ["a"], "chosen": [b"\0" * (80 * 2**20)], "rejected": [b"\1"]})
    pq.write_table(table, path, compression="zstd")
    with pytest.raises(DataError, match=r"bomb\.parquet: row group 0 grows from") as caught:
        open_preferences(path)
    assert caught.value.code == "unsafe_archive"


# --- as people's machines write them -------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(2))
    (table,) = folder.glob("*.jsonl")
    table.write_bytes(codecs.BOM_UTF8 + table.read_bytes())
    expected = [row.prompt for row in open_preferences(folder).annotations() if isinstance(row, Annotation)]
    assert expected == ["prompt 0", "prompt 1"]
    array = [json.loads(line) for line in table.read_text("utf-8-sig").splitlines()]
    table.unlink()
    (folder / "pairs.json").write_bytes(codecs.BOM_UTF8 + json.dumps(array).encode())
    assert [row.prompt for row in open_preferences(folder).annotations() if isinstance(row, Annotation)] == expected
    (folder / "pairs.json").unlink()
    lines = [",".join(array[0]), *(",".join(row.values()) for row in array)]
    (folder / "pairs.csv").write_bytes(codecs.BOM_UTF8 + "\n".join(lines).encode())
    assert [row.prompt for row in open_preferences(folder).annotations() if isinstance(row, Annotation)] == expected


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_form_of_unicode_is_the_same_name(
    tmp_path: Path, in_table: Literal["NFC", "NFD"], on_disk: Literal["NFC", "NFD"], zipped: bool
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    names = ["Ärger/Möwe.png", "Ärger/Übung.png"]
    for name in names:
        path = folder / unicodedata.normalize(on_disk, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image_bytes(len(name)))
    chosen, rejected = (unicodedata.normalize(in_table, name) for name in names)
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": chosen, "rejected": rejected}))
    source = open_preferences(zip_folder(folder, tmp_path / "a.zip") if zipped else folder)
    (row,) = source.read(source.annotations())
    assert isinstance(row, PreferenceRow)
    assert (row.chosen, row.rejected) == (image_bytes(len(names[0])), image_bytes(len(names[1])))


def test_utf8_names_of_a_zip_that_does_not_say_so_are_read(tmp_path: Path) -> None:
    """As the archiver of macOS writes them; `zipfile` would read them as code page 437."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("M\N{LATIN SMALL LETTER O WITH DIAERESIS}we.png", "b.png"):
            archive.writestr(name, image_bytes(len(name)))
        row = {"prompt": "p", "chosen": "M\N{LATIN SMALL LETTER O WITH DIAERESIS}we.png", "rejected": "b.png"}
        archive.writestr("pairs.jsonl", json.dumps(row))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(magic)
        assert data[at + offset + 1] & 0x08
        data[at + offset + 1] &= ~0x08
    (tmp_path / "a.zip").write_bytes(data)
    source = open_preferences(tmp_path / "a.zip")
    assert [type(one) for one in source.read(source.annotations())] == [PreferenceRow]


def test_decimals_are_labels(tmp_path: Path) -> None:
    values = rows(3)
    table = pa.table({name: [row[name] for row in values] for name in values[0]})
    labels = pa.array([Decimal("0.80"), Decimal("1.00"), Decimal("0.25")], pa.decimal128(5, 2))
    pq.write_table(table.append_column("label", labels), tmp_path / "a.parquet")
    found = [row for row in open_preferences(tmp_path / "a.parquet").annotations() if isinstance(row, Annotation)]
    assert [row.label for row in found] == [0.8, 1.0, 0.75]


def test_a_method_of_compression_that_is_not_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = zip_folder(write_jsonl_folder(tmp_path / "data", rows(1)), tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = data.find(magic)
        data[at + offset] = 9
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=r"compressed with Deflate64, which is not read here; make the zip anew"
    ) as caught:
        open_preferences(path)
    assert caught.value.code == "unreadable_file"
