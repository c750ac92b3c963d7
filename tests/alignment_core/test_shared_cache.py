"""Runs on machines that share what they encode, with disks too small for it: the numbers are those of a run alone."""

from pathlib import Path

import pytest

from alignment_core import align
from alignment_core.checkpoints import folder_of
from alignment_core.datasets import encoding
from alignment_core.datasets.cache import TensorCache
from alignment_core.events import PhaseProgressed, WarningRaised
from alignment_core.spec import JobSpec
from alignment_core.spec.places import FolderShards, Sources
from alignment_core.spec.training import BlockShuffle
from tests.alignment_core.test_alignment import of_type, same_weights
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

A_SHARD = 12_000  # bytes; the tiny set then has several of images
STEPS = 4


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = TensorCache.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "shard_bytes", A_SHARD)


@pytest.fixture
def spec(tiny_model: Path, tiny_pairs: Path) -> JobSpec:
    training = {"steps": STEPS, "batch_size": 2, "gradient_accumulation_steps": 1}
    return tiny_spec(tiny_model, tiny_pairs, training=training, evaluation={**UNJUDGED, "batch_size": 4})


def sources_on(folder: Path, machine: str, disk_bytes: int | None) -> Sources:
    shards = FolderShards(folder=str(folder / machine), store=str(folder / "store"), disk_bytes=disk_bytes)
    return Sources(shards=shards)


def last(workdir: Path) -> Path:
    return folder_of(workdir / "checkpoints", STEPS)


def images_in(folder: Path) -> list[Path]:
    """Shards, the larger the earlier: images come first."""
    found = [path for path in folder.rglob("*.safetensors") if "-" not in path.name]
    return sorted(found, key=lambda path: -path.stat().st_size)


@pytest.mark.parametrize(
    "blocks", [None, pytest.param(BlockShuffle(rows=2, blocks=2), marks=pytest.mark.slow)], ids=["whole", "in blocks"]
)
def test_a_run_on_a_small_disk_that_stops_and_goes_on_elsewhere_ends_as_one_alone(
    blocks: BlockShuffle | None, spec: JobSpec, tmp_path: Path
) -> None:
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"block_shuffle": blocks})})
    list(align(spec, tmp_path / "alone", cache_dir=tmp_path / "cache"))

    small = sources_on(tmp_path, "first", 2 * A_SHARD)
    for event in (running := align(spec, tmp_path / "shared", cache_dir=tmp_path / "a", sources=small)):
        if event.type == "step_completed" and event.step == 2:
            break
    running.close()
    held = images_in(tmp_path / "first")
    assert sum(path.stat().st_size for path in held) < sum(
        path.stat().st_size for path in images_in(tmp_path / "store")
    )

    damaged = images_in(tmp_path / "store")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    elsewhere = sources_on(tmp_path, "second", 2 * A_SHARD)
    resumed = list(align(spec, tmp_path / "shared", cache_dir=tmp_path / "b", sources=elsewhere))
    ends = [one for one in of_type(resumed, PhaseProgressed) if one.phase == "caching" and one.done == one.total]
    encoded, total = sum(one.total - one.cached for one in ends), sum(one.total for one in ends)
    assert 0 < encoded < total / 2  # what was in the damaged shard, and nothing else
    assert "encoded_again" in {event.code for event in of_type(resumed, WarningRaised)}
    assert same_weights(last(tmp_path / "alone"), last(tmp_path / "shared"))


def test_what_goes_away_in_the_middle_of_a_run_is_made_again_and_the_run_says_so(spec: JobSpec, tmp_path: Path) -> None:
    running = align(
        spec, tmp_path / "run", cache_dir=tmp_path / "cache", sources=sources_on(tmp_path, "first", A_SHARD)
    )
    next(event for event in running if event.type == "step_completed")
    gone = {path.stem for path in images_in(tmp_path / "store")}
    for path in (*images_in(tmp_path / "store"), *images_in(tmp_path / "first")):
        path.unlink()
    (said,) = [one for one in of_type(list(running), WarningRaised) if one.code == "encoded_again"][:1]
    assert said.step is not None
    assert gone & {name.strip(", ") for name in said.message.split()}


def test_a_later_run_on_the_same_files_reads_no_image(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = align(spec, tmp_path / "first", cache_dir=tmp_path / "cache")
    next(event for event in begun if event.type == "step_completed")
    begun.close()
    read: list[int] = []
    read_images = encoding.read_images
    monkeypatch.setattr(
        encoding, "read_images", lambda source, rows: read.append(len(rows)) or read_images(source, rows)
    )
    list(align(spec, tmp_path / "second", cache_dir=tmp_path / "cache"))
    assert read
    assert sum(read) == 0
