import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from alignment_core.datasets.preflight import check_preferences
from alignment_core.datasets.tables import PROVENANCE
from alignment_core.errors import DataError
from alignment_core.reports import DatasetProblem, DatasetReport
from tests.alignment_core.datasets.builders import (
    Row,
    image_bytes,
    pick_a_pic_row,
    rows,
    write_jsonl_folder,
    write_parquet,
    zip_folder,
)


def _report(folder: Path, values: list[Row]) -> DatasetReport:
    return check_preferences(write_parquet(folder / "pairs.parquet", values))


def _problem(report: DatasetReport, code: str) -> DatasetProblem:
    (found,) = [problem for problem in report.problems if problem.code == code]
    return found


def _codes(report: DatasetReport) -> set[str]:
    return {problem.code for problem in report.problems}


def _bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (9000, 8000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_clean_dataset_has_no_problems_and_every_count(tmp_path: Path) -> None:
    values = rows(6, num_prompts=3)
    values[0]["label"], values[1]["label"], values[2]["label"] = 0.9, 0.5, 1.0
    report = _report(tmp_path, values)
    assert report.problems == []
    assert report.is_usable
    assert report.model_dump(exclude={"size_bytes", "content_sha256", "problems"}) == {
        "kind": "pairs",
        "format": "parquet",
        "num_rows": 6,
        "num_usable_rows": 6,
        "num_groups": 3,
        "num_unique_prompts": 3,
        "num_empty_prompts": 0,
        "num_ties": 1,
        "num_soft_labels": 1,
        "num_likes": 0,
        "num_dislikes": 0,
        "num_dropped_rows": 0,
        "num_long_prompts": 0,
        "shorter_sides": {"24": 12},
        "num_swapped": 0,
        "chosen_first_share": None,
        "image_sizes": {"24x24": 12},
    }
    assert report.size_bytes == (tmp_path / "pairs.parquet").stat().st_size


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"chosen": b"no image"}, "undecodable_image"),
        ({"rejected": image_bytes(0)[:200]}, "undecodable_image"),
        ({"rejected": _bomb()}, "image_too_large"),
        ({"chosen": image_bytes(0, 200, 8)}, "extreme_aspect_ratio"),
        ({"chosen": None}, "missing_image"),
        ({"label": 2.0}, "invalid_label"),
        ({"score": -1.0}, "invalid_score"),
        ({"prompt": None}, "invalid_prompt"),
        ({"group_id": ""}, "invalid_group_id"),
    ],
)
def test_an_error_names_its_rows_and_makes_the_dataset_unusable(tmp_path: Path, changes: Row, code: str) -> None:
    values = rows(9)
    for number in (2, 5, 9):
        values[number - 1] |= changes
    report = _report(tmp_path, values)
    assert _codes(report) == {code}
    problem = _problem(report, code)
    assert (problem.severity, problem.count, problem.rows) == ("error", 3, [2, 5, 9])
    assert "row 2" in problem.message
    assert (report.num_rows, report.num_usable_rows, report.is_usable) == (9, 6, False)


def test_an_image_problem_names_its_column(tmp_path: Path) -> None:
    values = rows(2)
    values[1]["rejected"] = b"no image"
    assert "rejected: not a readable image" in _problem(_report(tmp_path, values), "undecodable_image").message


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": " \n"}, "empty_prompt"),
        ({"chosen": image_bytes(500), "rejected": image_bytes(500)}, "identical_images"),
        ({"chosen": image_bytes(501, 32, 24)}, "mixed_sizes"),
        ({"label": 0.1}, "swapped_images"),
    ],
)
def test_a_warning_names_its_rows_and_leaves_the_dataset_usable(tmp_path: Path, changes: Row, code: str) -> None:
    values = rows(9)
    for number in (3, 8):
        values[number - 1] |= changes
    report = _report(tmp_path, values)
    problem = _problem(report, code)
    assert (problem.severity, problem.rows) == ("warning", [3, 8])
    assert (report.num_usable_rows, report.is_usable) == (9, True)


def test_duplicate_rows_are_the_later_ones(tmp_path: Path) -> None:
    values = rows(5)
    values[3] = values[1]
    values[4] = {**values[1], "prompt": "another prompt"}  # the same images under another prompt are no repeat
    problem = _problem(_report(tmp_path, values), "duplicate_rows")
    assert (problem.count, problem.rows) == (1, [4])
    assert "row 4 repeats row 2" in problem.message


def test_contradictory_pairs_are_both_named(tmp_path: Path) -> None:
    values = rows(6)
    values[4] = {**values[1], "chosen": values[1]["rejected"], "rejected": values[1]["chosen"]}
    values[5] = {**values[2], "label": 0.2}  # the same contradiction, said by its label
    problem = _problem(_report(tmp_path, values), "contradictory_pairs")
    assert (problem.severity, problem.count, problem.rows) == ("warning", 4, [2, 3, 5, 6])


def test_a_tie_repeated_the_other_way_round_is_a_duplicate_and_no_contradiction(tmp_path: Path) -> None:
    values = rows(4)
    values[1]["label"] = 0.5
    values[3] = {**values[1], "chosen": values[1]["rejected"], "rejected": values[1]["chosen"]}
    report = _report(tmp_path, [{"label": 1.0, **row} for row in values])
    assert _problem(report, "duplicate_rows").rows == [4]
    assert "contradictory_pairs" not in _codes(report)


def test_ties_only_are_an_error_and_many_a_warning(tmp_path: Path) -> None:
    all_ties = _report(tmp_path, [{**row, "label": 0.5} for row in rows(4)])
    assert (_problem(all_ties, "all_ties").severity, all_ties.num_ties, all_ties.is_usable) == ("error", 4, False)
    many = _report(tmp_path, [{**row, "label": 0.5 if index < 2 else 1.0} for index, row in enumerate(rows(4))])
    assert (_problem(many, "many_ties").severity, many.is_usable) == ("warning", True)


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pairs.jsonl").write_text("\n")
    report = check_preferences(folder)
    assert _codes(report) == {"no_usable_rows"}
    assert not report.is_usable


def test_a_prompt_that_straddles_groups_is_reported(tmp_path: Path) -> None:
    values = [{**row, "group_id": f"group {index % 3}"} for index, row in enumerate(rows(6, num_prompts=3))]
    assert "prompt_in_many_groups" not in _codes(_report(tmp_path, values))
    values[4]["group_id"] = "group 2"
    assert _problem(_report(tmp_path, values), "prompt_in_many_groups").rows == [5]


def test_one_group_cannot_be_split(tmp_path: Path) -> None:
    report = _report(tmp_path, [{**row, "group_id": "all"} for row in rows(3)])
    assert _problem(report, "one_group").severity == "warning"


def test_a_misspelt_column_is_reported(tmp_path: Path) -> None:
    report = _report(tmp_path, [{**row, "lable": 1.0} for row in rows(3)])
    assert "not read: lable" in _problem(report, "unread_columns").message


def test_where_rows_of_a_labeling_come_from_is_known_and_a_misspelt_column_beside_it_is_still_told(
    tmp_path: Path,
) -> None:
    values = [{**row, **dict.fromkeys(PROVENANCE, "told")} for row in rows(3)]
    assert _report(tmp_path, values).problems == []
    misspelt = _report(tmp_path, [{**row, "chosen_modle": "base"} for row in values])
    assert "not read: chosen_modle;" in _problem(misspelt, "unread_columns").message


def test_missing_columns_are_errors_of_their_rows_in_jsonl_and_of_the_file_in_parquet(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(2))
    with (folder / "pairs.jsonl").open("a") as lines:
        lines.write('{"prompt": "p", "chosen": "images/1-chosen.png"}\n')
    problem = _problem(check_preferences(folder), "missing_column")
    assert (problem.severity, problem.rows) == ("error", [3])
    with pytest.raises(DataError, match="no column rejected"):
        _report(tmp_path, [{"prompt": "p", "chosen": b"x"}])


def test_only_the_first_hundred_rows_are_listed(tmp_path: Path) -> None:
    values: list[Row] = [{"prompt": f"{index}", "chosen": b"x", "rejected": b"y"} for index in range(150)]
    problem = _problem(_report(tmp_path, values), "undecodable_image")
    assert (problem.count, problem.rows) == (150, list(range(1, 101)))


def test_the_ten_most_frequent_sizes_are_listed(tmp_path: Path) -> None:
    values = [{**row, "chosen": image_bytes(index, 24 + index, 24)} for index, row in enumerate(rows(12))]
    report = _report(tmp_path, values)
    assert len(report.image_sizes) == 10
    assert report.image_sizes["24x24"] == 13


def test_pick_a_pic_counts_swaps_ties_and_the_share_of_the_first_image(tmp_path: Path) -> None:
    labels = [1.0, 0.0, 0.0, 0.5]
    values = [pick_a_pic_row(index, label) for index, label in enumerate(labels)]
    values.append(pick_a_pic_row(9, 1.0, has_label=False))
    report = _report(tmp_path, values)
    assert (report.format, report.num_rows, report.num_usable_rows) == ("pick_a_pic", 5, 4)
    assert (report.num_swapped, report.num_ties, report.chosen_first_share) == (2, 1, pytest.approx(1 / 3))
    assert _codes(report) == {"unlabeled_row"}
    assert _problem(report, "unlabeled_row").rows == [5]
    assert report.is_usable


def test_position_bias_needs_evidence(tmp_path: Path) -> None:
    def with_share(wins: int, num: int) -> set[str]:
        shared = {"jpg_0": image_bytes(0), "jpg_1": image_bytes(1)}
        values = [pick_a_pic_row(index, float(index < wins), **shared) for index in range(num)]
        return _codes(_report(tmp_path, values))

    assert "position_bias" not in with_share(5, 6)
    assert "position_bias" not in with_share(110, 200)
    assert "position_bias" in with_share(180, 200)
    assert "position_bias" in with_share(20, 200)


def test_folder_and_zip_have_the_same_report_but_for_their_size(tmp_path: Path) -> None:
    values = [{**row, "label": 0.8} for row in rows(4)]
    folder = write_jsonl_folder(tmp_path / "data", values)
    reports = [check_preferences(folder), check_preferences(zip_folder(folder, tmp_path / "data.zip"))]
    first, second = (report.model_dump(exclude={"size_bytes"}) for report in reports)
    assert first == second
    assert reports[0].size_bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_content_hash_is_that_of_the_rows_in_any_format(tmp_path: Path) -> None:
    values = rows(4)
    in_parquet = _report(tmp_path, values).content_sha256
    assert check_preferences(write_jsonl_folder(tmp_path / "data", values)).content_sha256 == in_parquet
    values[3]["rejected"] = image_bytes(99)
    assert _report(tmp_path, values).content_sha256 != in_parquet


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    values = [{"label": 1.0, **row} for row in rows(10)]
    values[1]["chosen"] = b"x"
    values[3]["label"] = 7.0
    values[5]["prompt"] = ""
    values[7] = values[0]
    report = _report(tmp_path, values)
    assert {problem.code: problem.rows for problem in report.problems} == {
        "undecodable_image": [2],
        "invalid_label": [4],
        "empty_prompt": [6],
        "duplicate_rows": [8],
    }
    assert [problem.severity for problem in report.problems] == ["error", "error", "warning", "warning"]


def test_preflight_imports_no_torch() -> None:
    code = (
        "import sys; import alignment_core.datasets.preflight; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_bad_row_has_its_own_reason_and_says_which_side(tmp_path: Path) -> None:
    values = rows(8)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0"
    broken = {
        1: image_bytes(3)[:-40],
        2: b"",
        3: b"<html>not found</html>",
        4: b"\x89PNG\r\n\x1a\n",
        5: b"text",
        6: heic,
    }
    for index, data in broken.items():
        values[index]["rejected" if index % 2 else "chosen"] = data
    values[5]["chosen"] = b"also text"
    report = _report(tmp_path, values)
    reasons = {detail.row: detail.message for problem in report.problems for detail in problem.details}
    reasons |= {problem.rows[0]: problem.message for problem in report.problems if problem.count == 1}
    assert set(reasons) == {index + 1 for index in broken}
    assert len(set(reasons.values())) == 6
    for index in broken:
        assert ("rejected" if index % 2 else "chosen") in reasons[index + 1]
    assert reasons[6].startswith("chosen: ")
    assert "; rejected: " in reasons[6], "both sides of a row are told"
    assert "HTML file" in reasons[4]
    assert "HEIC file, which is not read here; convert it to PNG, JPEG, WEBP or AVIF" in reasons[7]
    assert _problem(report, "undecodable_image").message.endswith("(2 more reasons in other rows)")


def test_files_that_are_missing_are_named_with_their_side(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(3))
    for image in sorted(folder.rglob("*.png"))[:2]:
        image.unlink()
    (problem,) = check_preferences(folder).problems
    assert problem.code == "missing_image"
    assert "chosen: no file" in problem.message
    assert "; rejected: no file" in problem.message


def test_rows_whose_pictures_are_all_identical_teach_nothing(tmp_path: Path) -> None:
    values = [{**row, "rejected": row["chosen"]} for row in rows(3)]
    report = _report(tmp_path, values)
    assert not report.is_usable
    assert _problem(report, "all_identical").message.startswith("chosen and rejected are the same file in every row")
    one_differs = _report(tmp_path, [*values, *rows(1)])
    assert one_differs.is_usable
    assert _problem(one_differs, "identical_images").count == 3


def test_long_prompts_are_counted_never_too_many(tmp_path: Path) -> None:
    values = rows(4)
    for row, prompt in zip(values, ["a " * 75, "a " * 76, "!? " * 80, "x" * 500], strict=True):
        row["prompt"] = prompt
    report = _report(tmp_path, values)
    assert report.num_long_prompts == 2
    assert _problem(report, "long_prompt").rows == [2, 3]


def test_images_are_counted_by_their_shorter_side(tmp_path: Path) -> None:
    values = rows(3)
    values[0]["chosen"] = image_bytes(100, 300, 256)
    values[1]["chosen"] = image_bytes(101, 255, 300)
    report = _report(tmp_path, values)
    assert report.shorter_sides == {"24": 4, "192": 1, "256": 1}
    assert [report.num_below(side) for side in (24, 32, 255, 256, 320)] == [0, 4, 4, 5, 6]
