"""Single judged images: how they are read, checked and trained on, and pairs read as such images."""

import json
from pathlib import Path

import pytest
import torch

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.detect import dataset_kind, open_preferences, open_unpaired
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.preflight import check_preferences
from alignment_core.datasets.preparation import Preparation
from alignment_core.datasets.rows import BadRow, ImageReader
from alignment_core.datasets.transforms import Crop
from alignment_core.datasets.unpaired import ImageAnnotation, ImageRow, images_of_pairs, read_judged_images
from alignment_core.errors import DataError
from tests.alignment_core.datasets.builders import Encoders, Row, drain, image_bytes, rows, write_parquet, zip_folder


def judged(num: int) -> list[Row]:
    return [{"prompt": f"prompt {i % 3}", "image": image_bytes(i), "label": i % 2} for i in range(num)]


def written(folder: Path, kind: str, values: list[Row]) -> Path:
    if kind == "parquet":
        return write_parquet(folder / "images.parquet", values)
    (folder / "data" / "images").mkdir(parents=True)
    lines = []
    for number, row in enumerate(values):
        line = dict(row)
        if isinstance(data := row.get("image"), bytes):
            line["image"] = f"images/{number}.png"
            (folder / "data" / "images" / f"{number}.png").write_bytes(data)
        lines.append(json.dumps(line))
    (folder / "data" / "rows.jsonl").write_text("\n".join(lines))
    return zip_folder(folder / "data", folder / "data.zip") if kind == "zip" else folder / "data"


def prepared(
    reader: ImageReader,
    images: list[ImageAnnotation],
    cache: Path,
    encoders: Encoders,
    *,
    is_seekable: bool = False,
    crop: Crop = "center",
) -> JudgedImages:
    _, found = drain(
        JudgedImages.prepare(
            reader,
            images,
            Preparation(
                encode_images=encoders.encode_images,
                encode_prompts=encoders.encode_prompts,
                image_fingerprint="m",
                prompt_fingerprint="m",
                resolution=16,
                crop=crop,
                horizontal_flip=False,
                cache_dir=cache,
                batch_size=4,
            ),
            is_seekable=is_seekable,
        )
    )
    return found


KINDS = ["parquet", "jsonl", "zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_images(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind, judged(4))
    assert dataset_kind(path) == "unpaired"
    source = open_unpaired(path)
    found = [row for row in source.read(source.annotations()) if isinstance(row, ImageRow)]
    assert [row.number for row in found] == [1, 2, 3, 4]
    assert [row.image for row in found] == [image_bytes(i) for i in range(4)]
    assert [row.liked for row in found] == [False, True, False, True]
    assert found[0].group_id == found[3].group_id != found[1].group_id


def test_labels_may_be_booleans(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", [{**row, "label": bool(row["label"])} for row in judged(2)])
    assert [row.liked for row in read_judged_images(open_unpaired(path))] == [False, True]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_label_that_is_neither_like_nor_dislike_is_named_with_its_row(kind: str, tmp_path: Path) -> None:
    values = judged(3)
    values[1]["label"] = 0.5
    values[0]["label"] = 1.0
    values[2]["label"] = 0.0
    source = open_unpaired(written(tmp_path, kind, values))
    (bad,) = [row for row in source.annotations() if isinstance(row, BadRow)]
    assert (bad.number, bad.code, bad.severity) == (2, "invalid_label", "error")
    assert "0.5" in bad.message
    assert "expected 1 (liked) or 0 (disliked)" in bad.message
    with pytest.raises(DataError, match="row 2: label"):
        read_judged_images(source)


def test_a_file_without_labels_says_which_column_is_missing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"prompt": "a", "image": image_bytes(1)}])
    with pytest.raises(DataError, match="no column label"):
        open_unpaired(path)


@pytest.mark.parametrize("kind", KINDS)
def test_preflight_counts_likes_and_dislikes(kind: str, tmp_path: Path) -> None:
    report = check_preferences(written(tmp_path, kind, judged(7)))
    assert (report.kind, report.num_usable_rows, report.num_likes, report.num_dislikes) == ("unpaired", 7, 3, 4)
    assert (report.num_groups, report.is_usable, report.problems) == (3, True, [])
    assert report.image_sizes == {"24x24": 7}


def test_preflight_names_the_rows_that_are_wrong(tmp_path: Path) -> None:
    values = judged(8)
    values[3] = {**values[1]}
    values[4] = {**values[1], "label": 0}
    values[6]["image"] = b"no image"
    problems = {one.code: one for one in check_preferences(written(tmp_path, "parquet", values)).problems}
    assert problems["duplicate_rows"].rows == [4]
    assert problems["contradictory_labels"].rows == [2, 5]
    assert problems["undecodable_image"].rows == [7]
    assert problems["undecodable_image"].severity == "error"


def test_preflight_warns_of_images_that_were_all_liked(tmp_path: Path) -> None:
    report = check_preferences(written(tmp_path, "parquet", [{**row, "label": 1} for row in judged(3)]))
    assert report.is_usable
    assert [one.code for one in report.problems] == ["one_label"]
    assert "every image is liked (label 1)" in report.problems[0].message


def test_training_reads_each_image_beside_its_label_and_prompt(tmp_path: Path) -> None:
    source, encoders = open_unpaired(written(tmp_path, "parquet", judged(6))), Encoders()
    images = prepared(source, read_judged_images(source), tmp_path / "cache", encoders)
    batch = images.batch([5, 0, 5])
    assert batch.liked.tolist() == [True, False, True]
    assert torch.equal(batch.mean[0], batch.mean[2])
    assert not torch.equal(batch.mean[0], batch.mean[1])
    assert (images.likes, images.dislikes, images.num_winners) == ([1, 3, 5], [0, 2, 4], 3)
    mean, _, _ = images.winners([2], [torch.Generator()])
    assert torch.equal(mean[0], batch.mean[0])
    again = Encoders()
    prepared(source, read_judged_images(source), tmp_path / "cache", again)
    assert (again.num_images, again.num_prompts) == (0, 0)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_pairs_are_a_like_and_a_dislike_each(crop: Crop, tmp_path: Path) -> None:
    source = open_preferences(write_parquet(tmp_path / "pairs.parquet", rows(5)))
    found = images_of_pairs(read_annotations(source, ties="drop"))
    images = prepared(source, found, tmp_path / "cache", Encoders(), crop=crop)
    assert images.liked.tolist() == [True, False] * 5
    draws = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)]
    batch = images.batch([0, 1], draws)
    assert not torch.equal(batch.mean[0], batch.mean[1])


@pytest.mark.parametrize("crop", ["center", "random"])
def test_an_image_that_won_and_lost_counts_once_as_liked(crop: Crop, tmp_path: Path) -> None:
    best, middle, worst = (image_bytes(seed) for seed in range(3))
    ranking: list[Row] = [
        {"prompt": "p", "chosen": chosen, "rejected": rejected}
        for chosen, rejected in ((best, middle), (middle, worst), (best, worst))
    ]
    source = open_preferences(write_parquet(tmp_path / "pairs.parquet", ranking))
    found = images_of_pairs(read_annotations(source, ties="drop"))
    images = prepared(source, found, tmp_path / "cache", Encoders(), crop=crop)
    assert images.liked.tolist() == [True, True, False]
