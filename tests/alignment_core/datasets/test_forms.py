"""Every form in which people have their data gives the same pairs as canonical parquet."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment_core.datasets.detect import dataset_kind, open_preferences
from alignment_core.datasets.prepare import prepare_parquet
from alignment_core.datasets.rows import BadRow, PreferenceRow
from tests.alignment_core.datasets.builders import Row, image_bytes, pick_a_pic_row, write_parquet, zip_folder

NUM_PAIRS = 7
Pair = tuple[str, bytes, bytes]  # prompt, chosen, rejected
PAIRS: list[Pair] = [(f'prompt {i}, "quoted"', image_bytes(2 * i), image_bytes(2 * i + 1)) for i in range(NUM_PAIRS)]


def first_won(index: int) -> bool:
    return index % 3 != 0


def sides(index: int) -> tuple[str, str]:
    """File names of the first and the second image, the chosen one not always first."""
    names = (f"images/{index}-w.png", f"images/{index}-l.png")
    return names if first_won(index) else (names[1], names[0])


def with_images(folder: Path, under: str = "") -> Path:
    (folder / under / "images").mkdir(parents=True)
    for index, (_, chosen, rejected) in enumerate(PAIRS):
        (folder / under / f"images/{index}-w.png").write_bytes(chosen)
        (folder / under / f"images/{index}-l.png").write_bytes(rejected)
    return folder


def write_csv(path: Path, rows: list[Row], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def ordered(index: int, **preference: object) -> Row:
    first, second = sides(index)
    return {"prompt": PAIRS[index][0], "image_0": first, "image_1": second, **preference}


def plain_rows() -> list[Row]:
    return [
        {"prompt": prompt, "chosen": f"images/{i}-w.png", "rejected": f"images/{i}-l.png"}
        for i, (prompt, _, _) in enumerate(PAIRS)
    ]


def write_save_to_disk(folder: Path, rows: list[Row], num_shards: int = 2, split: str | None = None) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves: Arrow streams with images as structs, and two descriptions."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    names = [f"data-{index:05d}-of-{num_shards:05d}.arrow" for index in range(num_shards)]
    size = -(-table.num_rows // num_shards)
    for index, name in enumerate(names):
        shard = table.slice(index * size, size)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(shard, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"description": "", "features": {}}))
    return folder


def struct(data: bytes) -> Row:
    return {"bytes": data, "path": None}


def embedded_rows() -> list[Row]:
    return [{"prompt": p, "chosen": struct(chosen), "rejected": struct(rejected)} for p, chosen, rejected in PAIRS]


def csv_folder(folder: Path) -> Path:
    write_csv(with_images(folder) / "pairs.csv", plain_rows())
    return folder


def excel_csv(folder: Path) -> Path:
    write_csv(with_images(folder) / "pairs.csv", plain_rows(), delimiter=";", encoding="utf-8-sig")
    return folder


def tsv_zip(folder: Path) -> Path:
    write_csv(with_images(folder) / "pairs.tsv", plain_rows(), delimiter="\t")
    return zip_folder(folder, folder.with_suffix(".zip"), "top/")


def json_array(folder: Path) -> Path:
    (with_images(folder) / "pairs.json").write_text(json.dumps(plain_rows(), indent=1))
    return folder


def json_of_structs(folder: Path) -> Path:
    rows = [
        {name: {"bytes": None, "path": value} if name != "prompt" else value for name, value in row.items()}
        for row in plain_rows()
    ]
    (with_images(folder) / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def json_lines_called_json(folder: Path) -> Path:
    (with_images(folder) / "pairs.json").write_text("\n".join(map(json.dumps, plain_rows())))
    return folder


def parquet_with_paths(folder: Path) -> Path:
    write_parquet(with_images(folder) / "pairs.parquet", plain_rows())
    return folder


def parquet_shards_in_a_zip(folder: Path) -> Path:
    folder.mkdir()
    write_parquet(folder / "0.parquet", embedded_rows()[:3], row_group_size=2)
    write_parquet(folder / "1.parquet", embedded_rows()[3:])
    return zip_folder(folder, folder.with_suffix(".zip"))


def saved_to_disk(folder: Path) -> Path:
    return write_save_to_disk(folder, embedded_rows())


def saved_to_disk_in_a_zip(folder: Path) -> Path:
    return zip_folder(write_save_to_disk(folder, embedded_rows()), folder.with_suffix(".zip"), "ds/")


def saved_dict_of_splits(folder: Path) -> Path:
    write_save_to_disk(folder / "train", embedded_rows(), split="train")
    write_save_to_disk(folder / "test", embedded_rows()[:2], num_shards=1, split="test")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder


def winner_by_letter(folder: Path) -> Path:
    rows = [ordered(i, winner="a" if first_won(i) else "B") for i in range(NUM_PAIRS)]
    write_csv(with_images(folder) / "pairs.csv", rows)
    return folder


def winner_by_column(folder: Path) -> Path:
    rows = [ordered(i, winner="image_0" if first_won(i) else "image_1") for i in range(NUM_PAIRS)]
    (with_images(folder) / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def winner_by_file(folder: Path) -> Path:
    write_csv(with_images(folder) / "p.csv", [ordered(i, winner=f"{i}-w.png") for i in range(NUM_PAIRS)])
    return folder


def label_0_and_label_1(folder: Path) -> Path:
    rows = [ordered(i, label_0=int(first_won(i)), label_1=int(not first_won(i))) for i in range(NUM_PAIRS)]
    write_csv(with_images(folder) / "pairs.csv", rows)
    return folder


def preferred(folder: Path) -> Path:
    rows = [ordered(i, preferred="left" if first_won(i) else "right") for i in range(NUM_PAIRS)]
    write_csv(with_images(folder) / "pairs.csv", rows)
    return folder


def rank_of_each(folder: Path) -> Path:
    rows = [ordered(i, rank_0=1 if first_won(i) else 2, rank_1=2 if first_won(i) else 1) for i in range(NUM_PAIRS)]
    write_csv(with_images(folder) / "pairs.csv", rows)
    return folder


def unanimous_votes(folder: Path) -> Path:
    rows = [ordered(i, votes_0=5 * first_won(i), votes_1=5 * (not first_won(i))) for i in range(NUM_PAIRS)]
    write_csv(with_images(folder) / "pairs.csv", rows)
    return folder


def ranks_of_rows(folder: Path) -> Path:
    rows: list[Row] = []
    for i, (prompt, _, _) in enumerate(PAIRS):
        ranked = [(f"images/{i}-w.png", 1), (f"images/{i}-l.png", 2)]
        rows += [{"prompt": prompt, "image": name, "rank": rank} for name, rank in reversed(ranked)]
    write_csv(with_images(folder) / "ranks.csv", rows)
    return folder


def pick_a_pic_shards(folder: Path) -> Path:
    folder.mkdir()
    rows = []
    for i, (prompt, chosen, rejected) in enumerate(PAIRS):
        first, second = (chosen, rejected) if first_won(i) else (rejected, chosen)
        rows.append(pick_a_pic_row(i, float(first_won(i)), caption=prompt, jpg_0=first, jpg_1=second))
    for shard, start in enumerate(range(0, NUM_PAIRS, 3)):
        write_parquet(folder / f"train-{shard:05d}-of-00003-0123456789abcdef.parquet", rows[start : start + 3])
    write_parquet(folder / "validation_unique-00000-of-00001-0123456789abcdef.parquet", rows[:1])
    return folder


def hpdv2_train(folder: Path) -> Path:
    rows = [
        {
            "prompt": PAIRS[i][0],
            "file_path": [name.removeprefix("images/") for name in sides(i)],
            "human_preference": [int(first_won(i)), int(not first_won(i))],
        }
        for i in range(NUM_PAIRS)
    ]
    with_images(folder)
    (folder / "images").rename(folder / "train")
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


def hpdv2_test(folder: Path) -> Path:
    rows = [
        {
            "prompt": PAIRS[i][0],
            "image_path": list(sides(i)),
            "rank": [1, 2] if first_won(i) else [2, 1],
            "raw_annotations": [{"rank": [1, 2], "user_hash": "u"}],
        }
        for i in range(NUM_PAIRS)
    ]
    (with_images(folder) / "test.json").write_text(json.dumps(rows))
    return folder


def hpdv3(folder: Path) -> Path:
    rows = [
        {
            "prompt": prompt,
            "path1": f"images/{i}-w.png",
            "path2": f"images/{i}-l.png",
            "choice_dist": [12, 7],
            "confidence": None,
            "model1": "flux",
            "model2": "kolors",
        }
        for i, (prompt, _, _) in enumerate(PAIRS)
    ]
    (with_images(folder) / "train.json").write_text(json.dumps(rows))
    return folder


def image_reward_db(folder: Path) -> Path:
    place = folder / "images" / "train" / "train_1"
    place.mkdir(parents=True)
    rows = []
    for i, (prompt, chosen, rejected) in enumerate(PAIRS):
        for name, data, rank in ((f"{i}-l.webp", rejected, 2), (f"{i}-w.webp", chosen, 1)):
            (place / name).write_bytes(data)
            path = f"images/train/train_1/{name}"
            rows.append(
                {"image_path": path, "prompt_id": f"id-{i}", "prompt": prompt, "rank": rank, "overall_rating": 4}
            )
    (place / "train_1.json").write_text(json.dumps(rows))
    return folder


def image_reward_db_alone(folder: Path) -> Path:
    """One of its zips, unpacked, without the folders above it."""
    image_reward_db(folder)
    return folder / "images" / "train" / "train_1"


def image_reward_db_in_parquet(folder: Path) -> Path:
    rows = [
        {"image": struct(data), "prompt_id": f"id-{i}", "prompt": prompt, "rank": rank}
        for i, (prompt, chosen, rejected) in enumerate(PAIRS)
        for data, rank in ((rejected, 7), (chosen, 2))
    ]
    return write_parquet(folder.with_suffix(".parquet"), rows, row_group_size=3)


def rapidata(folder: Path) -> Path:
    rows = []
    for i, (prompt, chosen, rejected) in enumerate(PAIRS):
        first, second = (chosen, rejected) if first_won(i) else (rejected, chosen)
        share = float(first_won(i))
        rows.append(
            {
                "prompt": prompt,
                "image1": struct(first),
                "image2": struct(second),
                "model1": "m",
                "model2": "n",
                "weighted_results_image1_preference": share,
                "weighted_results_image2_preference": 1 - share,
                "detailed_results_preference": "[]",
            }
        )
    return write_parquet(folder.with_suffix(".parquet"), rows)


def image_folder_csv(folder: Path) -> Path:
    rows = [
        {"prompt": row["prompt"], "chosen_file_name": row["chosen"], "rejected_file_name": row["rejected"]}
        for row in plain_rows()
    ]
    write_csv(with_images(folder, "train") / "train" / "metadata.csv", rows)
    (folder / "README.md").write_text("# pairs")
    return folder


def image_folder_jsonl(folder: Path) -> Path:
    rows = [
        {"prompt": row["prompt"], "chosen_file_name": row["chosen"], "rejected_file_name": row["rejected"]}
        for row in plain_rows()
    ]
    (with_images(folder) / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def open_image_preferences(folder: Path) -> Path:
    rows = [{**row, "chosen_model": "dev", "rejected_model": "sd", "category": "Anime"} for row in embedded_rows()]
    return write_parquet(folder.with_suffix(".parquet"), rows)


FORMS: dict[Callable[[Path], Path], str] = {
    csv_folder: "csv",
    excel_csv: "csv",
    tsv_zip: "tsv",
    json_array: "json",
    json_lines_called_json: "json",
    json_of_structs: "jsonl",
    parquet_with_paths: "parquet",
    parquet_shards_in_a_zip: "parquet",
    saved_to_disk: "arrow",
    saved_to_disk_in_a_zip: "arrow",
    saved_dict_of_splits: "arrow",
    winner_by_letter: "csv",
    winner_by_column: "jsonl",
    winner_by_file: "csv",
    label_0_and_label_1: "csv",
    preferred: "csv",
    rank_of_each: "csv",
    unanimous_votes: "csv",
    ranks_of_rows: "csv",
    pick_a_pic_shards: "pick_a_pic",
    hpdv2_train: "hpdv2",
    hpdv2_test: "hpdv2",
    hpdv3: "hpdv3",
    image_reward_db: "image_reward_db",
    image_reward_db_alone: "image_reward_db",
    image_reward_db_in_parquet: "image_reward_db",
    rapidata: "rapidata",
    image_folder_csv: "image_folder",
    image_folder_jsonl: "image_folder",
    open_image_preferences: "parquet",
}


def pairs_of(path: Path, columns: dict[str, str] | None = None) -> list[Pair]:
    source = open_preferences(path, columns)
    found = list(source.read(source.annotations()))
    assert not [row for row in found if isinstance(row, BadRow)]
    rows = [row for row in found if isinstance(row, PreferenceRow)]
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert {row.label for row in rows} == {1.0}
    return [(row.prompt, row.chosen, row.rejected) for row in rows]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_pairs(form: Callable[[Path], Path], tmp_path: Path) -> None:
    path = form(tmp_path / "data")
    assert dataset_kind(path) == "pairs"
    assert pairs_of(path) == PAIRS
    assert open_preferences(path).format == FORMS[form]


@pytest.mark.parametrize(
    "form", [csv_folder, image_reward_db, pick_a_pic_shards, saved_to_disk], ids=lambda form: form.__name__
)
def test_what_is_prepared_is_the_same_data(form: Callable[[Path], Path], tmp_path: Path) -> None:
    path, out = form(tmp_path / "data"), tmp_path / "pairs.parquet"
    prepared = prepare_parquet(path, out)
    assert (prepared.kind, prepared.num_rows, prepared.num_left_out) == ("pairs", NUM_PAIRS, 0)
    assert pairs_of(out) == PAIRS
    assert pq.read_table(out).column_names == ["prompt", "group_id", "label", "score", "chosen", "rejected"]
    groups = [
        [row.group_id for row in open_preferences(one).annotations() if not isinstance(row, BadRow)]
        for one in (path, out)
    ]
    assert groups[0] == groups[1]
