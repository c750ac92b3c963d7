"""Columns that are called otherwise, preferences in every wording, and what is said of data that cannot be read."""

import json
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from alignment_core.datasets.columns import ROLES
from alignment_core.datasets.detect import dataset_kind, open_preferences, open_unpaired
from alignment_core.datasets.preflight import check_preferences
from alignment_core.datasets.prepare import prepare_parquet
from alignment_core.datasets.rows import Annotation, BadRow
from alignment_core.datasets.unpaired import ImageRow
from alignment_core.errors import DataError
from alignment_core.spec import LocalDataset, StoredDataset
from alignment_core.spec.sources import Role
from tests.alignment_core.datasets.builders import Row, image_bytes, rows, write_parquet
from tests.alignment_core.datasets.test_forms import (
    NUM_PAIRS,
    PAIRS,
    csv_folder,
    embedded_rows,
    first_won,
    pairs_of,
    rapidata,
    sides,
    struct,
    with_images,
    write_csv,
    write_save_to_disk,
)


def annotations(path: Path, columns: dict[str, str] | None = None) -> list[Annotation | BadRow]:
    return list(open_preferences(path, columns).annotations())


def labels(path: Path, columns: dict[str, str] | None = None) -> list[float]:
    """Probability that the first image is preferred."""
    found = annotations(path, columns)
    return [round(1 - row.label if row.swapped else row.label, 6) for row in found if isinstance(row, Annotation)]


def csv_of(folder: Path, values: list[Row]) -> Path:
    write_csv(with_images(folder) / "pairs.csv", values)
    return folder


def refused(path: Path, columns: dict[str, str] | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        open_preferences(path, columns)
    return caught.value


# --- a mapping -----------------------------------------------------------------------------------------------------


def test_columns_may_have_any_names(tmp_path: Path) -> None:
    values = [
        {
            "caption": PAIRS[i][0],
            "image_a": sides(i)[0],
            "image_b": sides(i)[1],
            "better": "image_a" if first_won(i) else "b",
        }
        for i in range(NUM_PAIRS)
    ]
    mapping = {"prompt": "caption", "image_0": "image_a", "image_1": "image_b", "winner": "better"}
    assert pairs_of(csv_of(tmp_path / "data", values), mapping) == PAIRS


def test_chosen_and_rejected_may_be_mapped_in_parquet(tmp_path: Path) -> None:
    values = [{"text": p, "good": struct(c), "bad": struct(r), "chosen": "a note"} for p, c, r in PAIRS]
    path = write_parquet(tmp_path / "a.parquet", values)
    assert pairs_of(path, {"prompt": "text", "chosen": "good", "rejected": "bad"}) == PAIRS


def test_a_mapping_names_only_what_is_called_otherwise(tmp_path: Path) -> None:
    values = [{"caption": p, "chosen": struct(c), "rejected": struct(r)} for p, c, r in PAIRS]
    assert pairs_of(write_parquet(tmp_path / "a.parquet", values), {"prompt": "caption"}) == PAIRS


def test_a_mapping_overrules_what_columns_happen_to_be_called(tmp_path: Path) -> None:
    """`label` may be a category, and `chosen` who chose."""
    values = [
        {"prompt": p, "x": sides(i)[0], "y": sides(i)[1], "chosen": "me", "label": 7, "first": int(first_won(i))}
        for i, (p, _, _) in enumerate(PAIRS)
    ]
    mapping = {"image_0": "x", "image_1": "y", "label_0": "first"}
    assert pairs_of(csv_of(tmp_path / "data", values), mapping) == PAIRS


def test_single_images_may_be_mapped(tmp_path: Path) -> None:
    values: list[Row] = [{"text": "p", "file": f"images/{i}-w.png", "liked": str(bool(i % 2))} for i in range(4)]
    path = csv_of(tmp_path / "data", values)
    mapping = {"prompt": "text", "image": "file", "label": "liked"}
    assert dataset_kind(path, mapping) == "unpaired"
    source = open_unpaired(path, mapping)
    found = [row for row in source.read(source.annotations()) if isinstance(row, ImageRow)]
    assert [(row.image, row.liked) for row in found] == [(PAIRS[i][1], bool(i % 2)) for i in range(4)]


def test_every_role_can_be_written_in_a_spec() -> None:
    of_pick_a_pic = {"has_label", "are_different"}
    assert set(Role.__args__) == (ROLES - of_pick_a_pic) | {"preferred"}
    assert LocalDataset(path="x", columns={"prompt": "caption"}).columns == {"prompt": "caption"}
    with pytest.raises(ValueError, match="columns"):
        LocalDataset.model_validate({"path": "x", "columns": {"promt": "caption"}})
    assert "columns" not in StoredDataset.model_fields, "an uploaded dataset has its own"


# --- preferences ---------------------------------------------------------------------------------------------------


def two_images(**preference: list[object]) -> list[Row]:
    (num,) = {len(values) for values in preference.values()}
    return [
        {"prompt": "p", "image_0": "images/0-w.png", "image_1": "images/0-l.png"}
        | {name: values[i] for name, values in preference.items()}
        for i in range(num)
    ]


def test_votes_are_a_soft_label_and_no_vote_is_a_warning(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "data", two_images(votes_0=[3, 1, 2, 0], votes_1=[1, 3, 2, 0]))
    assert labels(path) == [0.75, 0.25, 0.5]
    (bad,) = [row for row in annotations(path) if isinstance(row, BadRow)]
    assert (bad.number, bad.code, bad.severity) == (4, "unlabeled_row", "warning")


def test_shares_need_not_sum_to_one(tmp_path: Path) -> None:
    assert labels(csv_of(tmp_path / "data", two_images(votes_0=[75, 0.2], votes_1=[25, 0.6]))) == [0.75, 0.25]


@pytest.mark.parametrize(
    "preference",
    [
        {"votes_0": 10**400, "votes_1": 1},
        {"votes_0": float("nan"), "votes_1": 1},
        {"votes_0": -1, "votes_1": 1},
        {"rank_0": True, "rank_1": 1},
        {"rank_0": "1", "rank_1": 1},
        {"winner": ["a"]},
        {"winner": True},
        {"label_0": 10**400},
    ],
)
def test_preferences_that_are_none_are_bad_rows(tmp_path: Path, preference: Row) -> None:
    line = {"prompt": "p", "image_0": "images/0-w.png", "image_1": "images/0-l.png", **preference}
    (with_images(tmp_path / "data") / "pairs.jsonl").write_text(json.dumps(line))
    (bad,) = annotations(tmp_path / "data")
    assert isinstance(bad, BadRow)
    assert bad.code == "invalid_label"


@pytest.mark.parametrize("rank", [10**400, float("nan"), "first", None])
def test_ranks_that_are_none_are_bad_rows(tmp_path: Path, rank: object) -> None:
    lines = [{"prompt": "p", "image": "images/0-w.png", "rank": rank}, {"prompt": "p", "image": "x", "rank": 1}]
    (with_images(tmp_path / "data") / "ranks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (bad,) = annotations(tmp_path / "data")
    assert isinstance(bad, BadRow)
    assert (bad.code, bad.message[:20]) == ("invalid_label", "row 1 of the file: r")


def test_ties_are_understood_in_words_and_ranks(tmp_path: Path) -> None:
    assert labels(csv_of(tmp_path / "a", two_images(winner=["tie", "both", "a"]))) == [0.5, 0.5, 1.0]
    assert labels(csv_of(tmp_path / "b", two_images(rank_0=[1, 2, 1], rank_1=[1, 1, 3]))) == [0.5, 0.0, 1.0]


def test_numbers_name_the_images_whose_columns_end_so(tmp_path: Path) -> None:
    values = [{"prompt": "p", "image1": "images/0-w.png", "image2": "images/0-l.png", "best": n} for n in (1, 2)]
    path = csv_of(tmp_path / "data", values)
    assert labels(path, {"image_0": "image1", "image_1": "image2", "winner": "best"}) == [1.0, 0.0]


def test_a_bare_number_that_could_be_either_is_refused(tmp_path: Path) -> None:
    values = [{"prompt": "p", "left": "images/0-w.png", "right": "images/0-l.png", "best": n} for n in (1, 2)]
    path = csv_of(tmp_path / "data", values)
    found = annotations(path, {"image_0": "left", "image_1": "right", "winner": "best"})
    assert [row.code for row in found if isinstance(row, BadRow)] == ["invalid_label"] * 2
    assert "best is '1' (str); expected one of a, b, left, right, tie" in getattr(found[0], "message", "")


def test_a_ranking_makes_every_pair_of_different_ranks(tmp_path: Path) -> None:
    values: list[Row] = [
        {"prompt": prompt, "image": struct(image_bytes(i)), "rank": rank}
        for i, (prompt, rank) in enumerate([("p", 2), ("p", 1), ("p", 2), ("q", 1), ("q", 5), ("p", 1)])
    ]
    source = open_preferences(write_parquet(tmp_path / "ranks.parquet", values, row_group_size=2))
    found = list(source.read(source.annotations()))
    seen = [(row.number, row.prompt, row.chosen, row.rejected) for row in found if not isinstance(row, BadRow)]
    picture = [image_bytes(i) for i in range(6)]
    assert seen == [
        (1, "p", picture[1], picture[0]),
        (2, "p", picture[1], picture[2]),
        (3, "q", picture[3], picture[4]),
    ]
    assert check_preferences(tmp_path / "ranks.parquet").problems == []


def test_rapidata_votes_keep_their_shares(tmp_path: Path) -> None:
    path = rapidata(tmp_path / "data")
    assert open_preferences(path).unread_columns() == []
    assert check_preferences(path).chosen_first_share == pytest.approx(4 / 7)


# --- an ImageFolder ------------------------------------------------------------------------------------------------


def test_an_image_folder_of_single_images_is_told_from_one_of_pairs(tmp_path: Path) -> None:
    values = [{"file_name": f"images/{i}-w.png", "prompt": "p", "label": i % 2} for i in range(4)]
    write_csv(with_images(tmp_path / "data") / "metadata.csv", values)
    assert dataset_kind(tmp_path / "data") == "unpaired"
    report = check_preferences(tmp_path / "data")
    assert (report.kind, report.format, report.num_likes, report.num_dislikes) == ("unpaired", "image_folder", 2, 2)


def test_captions_of_an_image_folder_are_mapped_by_either_name(tmp_path: Path) -> None:
    values = [
        {"text": p, "win_file_name": f"images/{i}-w.png", "lose_file_name": f"images/{i}-l.png"}
        for i, (p, _, _) in enumerate(PAIRS)
    ]
    write_csv(with_images(tmp_path / "data") / "metadata.csv", values)
    for chosen, rejected in (("win", "lose"), ("win_file_name", "lose_file_name")):
        assert pairs_of(tmp_path / "data", {"prompt": "text", "chosen": chosen, "rejected": rejected}) == PAIRS


# --- splits --------------------------------------------------------------------------------------------------------


def test_other_splits_are_named_and_not_read(tmp_path: Path) -> None:
    write_save_to_disk(tmp_path / "data" / "train", embedded_rows())
    write_save_to_disk(tmp_path / "data" / "test", embedded_rows()[:2], num_shards=1)
    report = check_preferences(tmp_path / "data")
    (note,) = [one for one in report.problems if one.code == "not_read"]
    assert (report.num_rows, note.severity) == (NUM_PAIRS, "warning")
    assert "test/data-00000-of-00001.arrow" in note.message


# --- what cannot be read -------------------------------------------------------------------------------------------


def test_a_missing_column_says_what_was_found_and_meant(tmp_path: Path) -> None:
    values = [{"prompt": "p", "chosen": "images/0-w.png", "rejectd": "images/0-l.png"}]
    error = refused(csv_of(tmp_path / "data", values))
    assert error.code == "missing_column"
    assert error.message == (
        "data: no column rejected (did you mean 'rejectd'?); expected chosen, prompt, rejected; found chosen, prompt, rejectd"
    )
    assert "columns" in (error.hint or "")


def test_columns_that_nobody_knows_are_listed(tmp_path: Path) -> None:
    error = refused(csv_of(tmp_path / "data", [{"text": "p", "good": "a.png", "bad": "b.png"}]))
    assert "no column chosen, rejected, prompt (did you mean 'text'?)" in error.message
    assert "found bad, good, text" in error.message


def test_two_images_without_a_preference_say_how_it_could_be_given(tmp_path: Path) -> None:
    error = refused(csv_of(tmp_path / "data", two_images(winer=["a"])))
    assert "label or label_0 or winner or votes_0+votes_1 or rank_0+rank_1" in error.message


def test_a_mapped_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(csv_folder(tmp_path / "data"), {"prompt": "promt"})
    assert (
        "no column 'promt' (columns.prompt) (did you mean 'prompt'?); found chosen, prompt, rejected" in error.message
    )


def test_rows_of_csv_with_other_numbers_of_cells_are_bad_rows(tmp_path: Path) -> None:
    path = csv_folder(tmp_path / "data")
    with (path / "pairs.csv").open("a") as file:
        file.write("a, b,images/0-w.png,images/0-l.png\n\nonly one\n")
    bad = [row for row in annotations(path) if isinstance(row, BadRow)]
    assert [(row.number, row.code) for row in bad] == [(8, "invalid_csv"), (9, "invalid_csv")]
    assert "4 cells; expected 3" in bad[0].message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'prompt,chosen,rejected\n"p,a,b\n', "well-formed CSV"),
        ("prompt,chosen,rejected\nh\xe4user,a,b\n".encode("latin-1"), "line 2, is not in UTF-8"),
        (b"prompt,prompt,chosen\np,p,a\n", "column 'prompt' is there more than once"),
    ],
)
def test_csv_that_cannot_be_read_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    error = refused(tmp_path)
    assert error.code == "unreadable_file"
    assert words in error.message


@pytest.mark.parametrize("content", ["[", '[{"prompt": "p"}', '[{"prompt" "p"}]', '[{"prompt": "p"} oops'])
def test_a_broken_array_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "pairs.json").write_text(content)
    assert refused(tmp_path).code == "unreadable_file"


def test_an_array_is_read_in_parts(tmp_path: Path) -> None:
    """Objects that straddle the parts, and an accent that does."""
    values = [{"prompt": "é" * 1000, "chosen": "a", "rejected": str(i)} for i in range(2000)]
    (tmp_path / "pairs.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    assert (tmp_path / "pairs.json").stat().st_size > 3 * 2**20
    found = annotations(tmp_path)
    assert [row.rejected for row in found if isinstance(row, Annotation)] == [str(i) for i in range(2000)]


# --- what must not be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "images/../../secret.png", "C:\\x.png"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_path_that_leads_out_is_refused_in_every_form(tmp_path: Path, path: str, form: str) -> None:
    (tmp_path / "secret.png").write_bytes(image_bytes(0))
    folder = with_images(tmp_path / "data")
    values: list[Row] = [{"prompt": "p", "chosen": path, "rejected": "images/0-l.png"}]
    if form == "csv":
        write_csv(folder / "pairs.csv", values)
    else:
        write_parquet(folder / "pairs.parquet", values)
    source = open_preferences(folder)
    (bad,) = source.read(source.annotations())
    assert isinstance(bad, BadRow)
    assert bad.code == "unsafe_path"


def test_a_struct_with_a_path_is_followed_in_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(image_bytes(0))
    folder = with_images(tmp_path / "data")
    values: list[Row] = [
        {"prompt": "p", "chosen": {"bytes": None, "path": path}, "rejected": struct(PAIRS[0][2])}
        for path in ("images/0-w.png", "../secret.png", str(tmp_path / "secret.png"))
    ]
    write_parquet(folder / "pairs.parquet", values)
    source = open_preferences(folder)
    good, *bad = source.read(source.annotations())
    assert not isinstance(good, BadRow)
    assert good.chosen == PAIRS[0][1]
    assert [row.code for row in bad if isinstance(row, BadRow)] == ["unsafe_path"] * 2


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_a_table_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path, form: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_csv(outside / "x.csv", [{"prompt": "p", "chosen": "a.png", "rejected": "b.png"}])
    write_parquet(outside / "x.parquet", rows(1))
    write_save_to_disk(outside / "saved", embedded_rows(), num_shards=1)
    (outside / "saved" / "data-00000-of-00001.arrow").rename(outside / "x.arrow")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"x.{form}").symlink_to(outside / f"x.{form}")
    assert refused(tmp_path / "data").code == "unsafe_path"


def test_folders_that_are_links_are_not_searched(tmp_path: Path) -> None:
    csv_folder(tmp_path / "outside")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert refused(tmp_path / "data").code == "unknown_format"


def test_an_address_is_not_fetched(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "data", [{"prompt": "p", "chosen": "https://x.org/a.png", "rejected": "images/0-l.png"}])
    (bad,) = annotations(path)
    assert isinstance(bad, BadRow)
    assert "nothing is fetched from the network" in bad.message


def test_state_json_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    write_save_to_disk(tmp_path / "other", embedded_rows(), num_shards=1)
    folder = write_save_to_disk(tmp_path / "data", embedded_rows(), num_shards=1)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "../other/data-00000-of-00001.arrow"}]})
    )
    assert refused(folder).code == "unreadable_file"


def test_a_compressed_arrow_stream_is_refused(tmp_path: Path) -> None:
    """Its batches could grow without limit, and `save_to_disk` never writes one."""
    table = pa.Table.from_pylist(embedded_rows())
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    assert refused(tmp_path).code == "unsafe_archive"


def test_an_arrow_file_whose_offsets_lead_out_of_it_is_refused(tmp_path: Path) -> None:
    folder = write_save_to_disk(
        tmp_path / "data", [{"prompt": "p", "chosen": b"12345678", "rejected": b"2"}], num_shards=1
    )
    file = folder / "data-00000-of-00001.arrow"
    data = bytearray(file.read_bytes())
    at = data.rindex((8).to_bytes(4, "little"), 0, data.rindex(b"12345678"))  # the end of the value, before the values
    data[at : at + 4] = (2**30).to_bytes(4, "little")
    file.write_bytes(bytes(data))
    assert refused(folder).code == "unreadable_file"


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_damaged_arrow_file_is_refused(tmp_path: Path, keep: int) -> None:
    folder = write_save_to_disk(tmp_path / "data", embedded_rows(), num_shards=1)
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:keep])
    assert refused(folder).code in ("unreadable_file", "missing_column")


def test_a_compressed_shard_that_grows_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("noise", os.urandom(2 * 2**20), zipfile.ZIP_STORED)
        archive.writestr("a.parquet", bytes(60 * 2**20))
    assert refused(path).code == "unsafe_archive"


def test_shards_in_a_zip_that_was_not_compressed_are_read_in_place(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", embedded_rows())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.write(tmp_path / "0.parquet", "data/0.parquet")
    assert pairs_of(tmp_path / "a.zip") == PAIRS


def test_preparing_stops_at_a_bad_row_and_leaves_no_file(tmp_path: Path) -> None:
    path = csv_folder(tmp_path / "data")
    (path / "images" / "3-w.png").unlink()
    with pytest.raises(DataError, match=r"row 4: chosen: no file 'images/3-w\.png'"):
        prepare_parquet(path, tmp_path / "out.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_preparing_leaves_bad_rows_out_where_it_is_told_to_and_names_them(tmp_path: Path) -> None:
    path = csv_folder(tmp_path / "data")
    (path / "images" / "3-w.png").unlink()
    prepared = prepare_parquet(path, tmp_path / "out.parquet", on_bad_row="drop")
    assert (prepared.num_rows, prepared.num_dropped) == (NUM_PAIRS - 1, 1)
    assert prepared.dropped[0].startswith("row 4: chosen: no file 'images/3-w.png'")
    assert pairs_of(tmp_path / "out.parquet") == [*PAIRS[:3], *PAIRS[4:]]


def test_one_table_of_a_folder_is_prepared_by_its_name(tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "data")
    write_csv(folder / "others.csv", [{"prompt": "p", "chosen": "images/0-w.png", "rejected": "images/0-l.png"}])
    assert prepare_parquet(folder / "pairs.csv", tmp_path / "a.parquet").num_rows == NUM_PAIRS
    assert prepare_parquet(folder / "others.csv", tmp_path / "b.parquet").num_rows == 1
    assert refused(folder / "pairs.csv").code == "unknown_format", "a run and an upload need the folder"


def test_single_images_are_prepared_as_such(tmp_path: Path) -> None:
    values = [{"file_name": f"images/{i}-w.png", "prompt": "p", "label": i % 2} for i in range(4)]
    write_csv(with_images(tmp_path / "data") / "metadata.csv", values)
    assert prepare_parquet(tmp_path / "data", tmp_path / "out.parquet").kind == "unpaired"
    source = open_unpaired(tmp_path / "out.parquet")
    found = [row for row in source.read(source.annotations()) if isinstance(row, ImageRow)]
    assert [(row.image, row.liked) for row in found] == [(PAIRS[i][1], bool(i % 2)) for i in range(4)]
