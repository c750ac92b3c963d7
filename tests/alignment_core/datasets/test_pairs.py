import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.pairs import PairTensors, PreferencePairs
from alignment_core.datasets.preparation import Preparation
from alignment_core.datasets.rows import Annotation, PreferenceSource
from alignment_core.datasets.transforms import transform
from alignment_core.errors import AlignmentError, DataError
from alignment_core.events import PhaseProgressed
from tests.alignment_core.datasets.builders import (
    Encoders,
    Row,
    drain,
    image_bytes,
    rows,
    write_jsonl_folder,
    write_parquet,
    zip_folder,
)

RESOLUTION = 16


def prepare(
    path: Path,
    cache_dir: Path,
    encoders: Encoders,
    *,
    selected: list[Annotation] | None = None,
    image_fingerprint: str = "vae",
    prompt_fingerprint: str = "text encoder",
    resolution: int = RESOLUTION,
    random: bool = False,
    joint: bool = True,
    batch_size: int = 8,
) -> tuple[list[object], PreferencePairs]:
    source = open_preferences(path)
    return drain(
        PreferencePairs.prepare(
            source,
            read_annotations(source, ties="keep") if selected is None else selected,
            Preparation(
                encode_images=encoders.encode_images,
                encode_prompts=encoders.encode_prompts,
                image_fingerprint=image_fingerprint,
                prompt_fingerprint=prompt_fingerprint,
                resolution=resolution,
                crop="random" if random else "center",
                horizontal_flip=random,
                cache_dir=cache_dir,
                batch_size=batch_size,
            ),
            joint=joint,
        )
    )


def _dataset(folder: Path, num: int = 20) -> Path:
    values = [{**row, "label": [1.0, 0.8, 0.5, 0.3][index % 4]} for index, row in enumerate(rows(num, num_prompts=6))]
    return write_parquet(folder / "pairs.parquet", values, row_group_size=7)


def _all(pairs: PreferencePairs) -> PairTensors:
    return pairs.batch(range(len(pairs)))


def _equal(first: PairTensors, second: PairTensors) -> bool:
    tensors = ("chosen_mean", "chosen_std", "rejected_mean", "rejected_std", "label")
    return (
        all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)
        and first.conditioning.keys() == second.conditioning.keys()
        and all(torch.equal(value, second.conditioning[name]) for name, value in first.conditioning.items())
    )


def _last(events: list[object]) -> PhaseProgressed:
    assert isinstance(events[-1], PhaseProgressed)
    return events[-1]


def _draws(num: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(first, first + num)]


# --- what a batch holds --------------------------------------------------------------------------------------------


def test_a_batch_holds_what_the_encoders_gave(tmp_path: Path) -> None:
    def encode_images(images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, :, :4, :4], images[:, :, :4, :4].abs()

    source = open_preferences(_dataset(tmp_path))
    _, pairs = drain(
        PreferencePairs.prepare(
            source,
            read_annotations(source, ties="drop"),
            Preparation(
                encode_images=encode_images,
                encode_prompts=Encoders().encode_prompts,
                image_fingerprint="f",
                prompt_fingerprint="f",
                resolution=RESOLUTION,
                crop="center",
                horizontal_flip=False,
                cache_dir=tmp_path / "cache",
                batch_size=8,
            ),
            joint=True,
        )
    )
    assert len(pairs) == 15
    batch = pairs.batch([2, 0])  # rows 4 and 1; the label of row 4 is 0.3, so its images are swapped
    images = {index: transform(decode_image(image_bytes(index)), RESOLUTION)[:, :4, :4] for index in (0, 1, 6, 7)}
    assert torch.equal(batch.chosen_mean, torch.stack([images[7], images[0]]))
    assert torch.equal(batch.rejected_mean, torch.stack([images[6], images[1]]))
    assert torch.equal(batch.chosen_std, batch.chosen_mean.abs())
    assert torch.equal(batch.rejected_std, batch.rejected_mean.abs())
    assert torch.equal(batch.label, torch.tensor([0.7, 1.0]))
    assert [pairs.prompts[index] for index in (2, 0)] == ["prompt 3", "prompt 0"]
    expected = Encoders().encode_prompts(["prompt 3", "prompt 0"])
    assert batch.conditioning.keys() == expected.keys()
    assert all(torch.equal(batch.conditioning[name], value) for name, value in expected.items())
    empty = Encoders().encode_prompts([""])
    assert all(torch.equal(pairs.empty_conditioning[name], value) for name, value in empty.items())


def test_indices_may_be_a_tensor_and_may_repeat(tmp_path: Path) -> None:
    _, pairs = prepare(_dataset(tmp_path), tmp_path / "cache", Encoders())
    assert _equal(pairs.batch(torch.tensor([5, 5, 1])), pairs.batch([5, 5, 1]))
    assert torch.equal(pairs.batch([5, 5]).chosen_mean[0], pairs.batch([5]).chosen_mean[0])


def test_no_rows_are_no_pairs(tmp_path: Path) -> None:
    _, pairs = prepare(_dataset(tmp_path), tmp_path / "cache", Encoders(), selected=[])
    assert (len(pairs), pairs.prompts, pairs.labels.shape) == (0, [], (0,))
    assert pairs.empty_conditioning["prompt_embeds"].shape == (1, 5, 2)
    with pytest.raises(ValueError, match="at least one pair"):
        pairs.batch([])


# --- the cache -----------------------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing_and_sees_the_same_bits(tmp_path: Path) -> None:
    path, first, second = _dataset(tmp_path), Encoders(), Encoders()
    events, missed = prepare(path, tmp_path / "cache", first)
    assert (_last(events).done, _last(events).total, _last(events).cached) == (47, 47, 0)
    assert (first.num_images, first.num_prompts) == (40, 7)
    events, hit = prepare(path, tmp_path / "cache", second)
    assert (_last(events).done, _last(events).total, _last(events).cached) == (47, 47, 47)
    assert (second.num_images, second.num_prompts) == (0, 0)
    assert _equal(_all(hit), _all(missed))


def test_the_same_content_in_another_format_and_order_is_not_computed_again(tmp_path: Path) -> None:
    values = rows(6)
    prepare(write_parquet(tmp_path / "a.parquet", values), tmp_path / "cache", Encoders())
    encoders = Encoders()
    folder = write_jsonl_folder(tmp_path / "data", values[::-1])
    _, pairs = prepare(zip_folder(folder, tmp_path / "data.zip"), tmp_path / "cache", encoders)
    assert (encoders.num_images, encoders.num_prompts) == (0, 0)
    assert pairs.prompts == [f"prompt {index}" for index in (5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize("change", ["vae", "text encoder", "resolution"])
def test_what_another_encoder_or_resolution_changes_is_computed_again_and_nothing_else(
    tmp_path: Path, change: str
) -> None:
    path, encoders = _dataset(tmp_path), Encoders()
    prepare(path, tmp_path / "cache", Encoders())
    if change == "vae":
        prepare(path, tmp_path / "cache", encoders, image_fingerprint="other")
        assert (encoders.num_images, encoders.num_prompts) == (40, 0)
    elif change == "text encoder":
        prepare(path, tmp_path / "cache", encoders, prompt_fingerprint="other")
        assert (encoders.num_images, encoders.num_prompts) == (0, 7)
    else:
        _, pairs = prepare(path, tmp_path / "cache", encoders, resolution=32)
        assert (encoders.num_images, encoders.num_prompts) == (40, 0)
        assert pairs.batch([0]).chosen_mean.shape == (1, 3, 8, 8)


def test_an_image_that_comes_again_is_encoded_once(tmp_path: Path) -> None:
    values: list[Row] = [
        {"prompt": f"{index}", "chosen": image_bytes(0), "rejected": image_bytes(index + 1)} for index in range(10)
    ]
    encoders = Encoders()
    events, pairs = prepare(write_parquet(tmp_path / "a.parquet", values), tmp_path / "cache", encoders)
    assert encoders.num_images == 11
    assert _last(events).done == _last(events).total
    assert pairs.batch([0, 9]).chosen_mean[0].equal(pairs.batch([9]).chosen_mean[0])


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_no_encoder_sees_more_than_a_batch(tmp_path: Path, batch_size: int, random: bool) -> None:
    encoders = Encoders()
    _, pairs = prepare(_dataset(tmp_path), tmp_path / "cache", encoders, batch_size=batch_size, random=random)
    pairs.batch(range(6), _draws(6))
    assert max(encoders.images) <= batch_size
    assert max(map(len, encoders.prompts)) <= batch_size


def test_a_run_killed_in_mid_caching_goes_on_and_sees_the_same_bits(tmp_path: Path) -> None:
    """Shards are made small, so that the killed process leaves some; the encoders' bits depend on the batch."""
    path = _dataset(tmp_path, 40)
    _, undisturbed = prepare(path, tmp_path / "undisturbed", Encoders())
    code = f"""
import os, signal
from pathlib import Path
from alignment_core.datasets import cache
from tests.alignment_core.datasets.builders import Encoders
from tests.alignment_core.datasets.test_pairs import prepare

class Deadly(Encoders):
    def encode_images(self, images):
        if self.num_images >= 48:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(images)

cache.TensorCache.__init__.__kwdefaults__["shard_bytes"] = 8000
prepare(Path({str(path)!r}), Path({str(tmp_path / "cache")!r}), Deadly())
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -9
    encoders = Encoders()
    events, resumed = prepare(path, tmp_path / "cache", encoders)
    assert 0 < encoders.num_images < 80
    assert _last(events).cached == _last(events).total - encoders.num_images
    assert _equal(_all(resumed), _all(undisturbed))


def test_a_damaged_shard_is_computed_again_with_the_same_bits(tmp_path: Path) -> None:
    path = _dataset(tmp_path)
    _, whole = prepare(path, tmp_path / "cache", Encoders())
    expected = _all(whole)
    for shard in (tmp_path / "cache").rglob("*.safetensors"):
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(bytes(data))
    encoders = Encoders()
    _, mended = prepare(path, tmp_path / "cache", encoders)
    assert (encoders.num_images, encoders.num_prompts) == (40, 7)
    assert _equal(_all(mended), expected)


def test_progress_grows_to_its_total(tmp_path: Path) -> None:
    events, _ = prepare(_dataset(tmp_path), tmp_path / "cache", Encoders())
    done = [event.done for event in events if isinstance(event, PhaseProgressed)]
    assert len(done) == len(events) >= 2
    assert done == sorted(done)
    assert done[-1] == 47


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("random", [False, True])
def test_an_undecodable_image_stops_with_its_row_and_column(tmp_path: Path, random: bool) -> None:
    values = rows(5)
    values[3]["rejected"] = b"no image"
    path = write_parquet(tmp_path / "a.parquet", values)
    with pytest.raises(DataError, match=r"a\.parquet, row 4, rejected: not a readable image"):
        _prepare_and_visit(path, tmp_path / "cache", random)


def _prepare_and_visit(path: Path, cache_dir: Path, random: bool) -> None:
    _, pairs = prepare(path, cache_dir, Encoders(), random=random)
    pairs.batch([3], _draws(1))


def test_a_posterior_that_is_not_finite_is_not_cached(tmp_path: Path) -> None:
    class Overflowing(Encoders):
        def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
            mean, std = super().encode_images(images)
            if self.num_images > 8:
                mean[1] = float("nan")
            return mean, std

    with pytest.raises(AlignmentError, match="rejected of row 5") as caught:
        prepare(_dataset(tmp_path), tmp_path / "cache", Overflowing())
    assert caught.value.code == "encoding_not_finite"


# --- random transforms ---------------------------------------------------------------------------------------------


def _varied(folder: Path) -> Path:
    values: list[Row] = [
        {"prompt": f"{i}", "chosen": image_bytes(2 * i, 40, 24), "rejected": image_bytes(2 * i + 1, 24, 40)}
        for i in range(9)
    ]
    return write_parquet(folder / "varied.parquet", values, row_group_size=2)


def _exact(images: Tensor) -> tuple[Tensor, Tensor]:
    """An encoder whose bits do not depend on the batch."""
    return images[:, :, :4, :4], images[:, :, :4, :4].abs()


def _random_pairs(path: Path, cache_dir: Path, source: PreferenceSource, batch_size: int) -> PreferencePairs:
    _, pairs = drain(
        PreferencePairs.prepare(
            source,
            read_annotations(source, ties="drop"),
            Preparation(
                encode_images=_exact,
                encode_prompts=Encoders().encode_prompts,
                image_fingerprint="f",
                prompt_fingerprint="f",
                resolution=RESOLUTION,
                crop="random",
                horizontal_flip=True,
                cache_dir=cache_dir,
                batch_size=batch_size,
            ),
            joint=True,
        )
    )
    return pairs


def test_random_transforms_are_encoded_at_every_visit_and_only_text_is_cached(tmp_path: Path) -> None:
    path, encoders = _varied(tmp_path), Encoders()
    events, pairs = prepare(path, tmp_path / "cache", encoders, random=True)
    assert (encoders.num_images, _last(events).total, _last(events).cached) == (0, 28, 0)
    pairs.batch([0, 1, 0], _draws(3))
    pairs.batch([0, 1, 0], _draws(3))
    assert encoders.num_images == 12
    again = Encoders()
    events, _ = prepare(path, tmp_path / "cache", again, random=True)
    assert (again.num_prompts, _last(events).cached) == (0, 28)


def test_every_format_is_visited_at_random_with_the_same_result(tmp_path: Path) -> None:
    values = rows(7)
    paths = [write_parquet(tmp_path / "a.parquet", values), write_jsonl_folder(tmp_path / "data", values)]
    paths.append(zip_folder(paths[1], tmp_path / "data.zip"))
    batches = []
    for path in paths:
        pairs = _random_pairs(path, tmp_path / "cache", open_preferences(path), batch_size=4)
        batches.append(pairs.batch([6, 0, 3, 0], _draws(4)))
    assert _equal(batches[0], batches[1])
    assert _equal(batches[0], batches[2])


def test_random_draws_depend_on_each_pairs_generator_alone(tmp_path: Path) -> None:
    path = _varied(tmp_path)
    pairs = _random_pairs(path, tmp_path / "cache", open_preferences(path), batch_size=3)
    together = pairs.batch([7, 2, 7, 4], _draws(4))
    for position, index in enumerate([7, 2, 7, 4]):
        alone = pairs.batch([index], _draws(1, first=position))
        assert torch.equal(alone.chosen_mean[0], together.chosen_mean[position])
        assert torch.equal(alone.rejected_std[0], together.rejected_std[position])
    assert not torch.equal(together.chosen_mean[0], together.chosen_mean[2])


def test_a_random_transform_asks_for_generators(tmp_path: Path) -> None:
    _, pairs = prepare(_varied(tmp_path), tmp_path / "cache", Encoders(), random=True)
    with pytest.raises(ValueError, match="one generator for each pair"):
        pairs.batch([0])
    with pytest.raises(ValueError, match="one generator for each pair"):
        pairs.batch([0, 1], _draws(1))


def test_cached_pairs_leave_the_generators_alone(tmp_path: Path) -> None:
    _, pairs = prepare(_dataset(tmp_path), tmp_path / "cache", Encoders())
    draw = torch.Generator().manual_seed(0)
    before = draw.get_state()
    pairs.batch([0], [draw])
    assert torch.equal(draw.get_state(), before)
