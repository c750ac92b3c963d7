"""Images are encoded in half where that moves the latents by no more than the bound, under a name of its own, and told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignment_core import align, checkpoints
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.events import Event, VaePrecisionChosen
from alignment_core.families.family import Family
from alignment_core.families.sd import StableDiffusion
from alignment_core.load import vae_precision
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.model import load_model
from alignment_core.load.run import load_run
from alignment_core.load.vae_precision import (
    ImageEncoding,
    choose_encoding,
    image_encoding,
    in_roundings,
    latent_errors,
    precision_within,
    vae_settled,
)
from alignment_core.ranks import ALONE
from alignment_core.spec import JobSpec, LocalSource
from alignment_core.spec.places import Sources
from alignment_core.spec.training import Precision
from alignment_core.training.run import Run
from tests.alignment_core.datasets.builders import drain, write_parquet
from tests.alignment_core.datasets.test_unpaired import judged
from tests.alignment_core.tiny import tiny_spec

CPU, FLOAT = torch.device("cpu"), torch.float32
TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "precision": "bf16"}
OVERFLOWS = 1e6  # times its weights, a convolution is beyond float16


@pytest.fixture
def family(tiny_model: Path) -> StableDiffusion:
    found = load_model(LocalSource(path=str(tiny_model)), device=CPU, frozen_dtype=FLOAT, denoiser_dtype=FLOAT)
    assert isinstance(found, StableDiffusion)
    return found


def images(family: Family, num: int = 3) -> Tensor:
    shape = (num, 3, family.resolution, family.resolution)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 255).round() / 127.5 - 1


def overflowing(family: StableDiffusion) -> StableDiffusion:
    family.vae.encoder.conv_in.weight.data.mul_(OVERFLOWS)
    return family


def chosen(family: Family, cache: Path, notes: Notes | None = None) -> tuple[list[Event], ImageEncoding]:
    return drain(
        choose_encoding(
            family,
            None,
            lambda: images(family),
            dataset_sha256="data",
            resolution=family.resolution,
            cache_dir=cache,
            notes=notes,
            ranks=ALONE,
        )
    )


# --- the bound -------------------------------------------------------------------------------------------------------


def test_the_error_is_told_in_what_rounding_pixels_moves_a_latent_in_the_worst_image() -> None:
    zeros = torch.zeros(2, 1, 2, 2)
    exact, moved = (zeros, zeros), (zeros + 0.3, zeros + 0.4)  # by 0.5, since noise scales the second
    found = (torch.tensor([0.0, 1.2]).reshape(2, 1, 1, 1) + zeros, torch.tensor([0.0, 1.6]).reshape(2, 1, 1, 1) + zeros)
    assert in_roundings(found, exact, moved) == pytest.approx(4.0)


def test_float16_errs_by_less_than_the_pixels_and_bfloat16_by_some_eight_times_that(family: StableDiffusion) -> None:
    errors = latent_errors(family, images(family))
    assert errors["fp16"] is not None
    assert errors["bf16"] is not None
    assert errors["fp16"] < 1
    assert 4 < errors["bf16"] / errors["fp16"] < 16


def test_the_least_error_within_the_bound_is_chosen_and_float32_beyond_it() -> None:
    assert precision_within({"fp16": 0.5, "bf16": 4.0}) == "fp16"
    assert precision_within({"fp16": None, "bf16": 4.0}) == "bf16"
    assert precision_within({"fp16": None, "bf16": 8.1}) == "fp32"
    assert precision_within({"fp16": None, "bf16": None}) == "fp32"


def test_weights_that_overflow_in_float16_are_encoded_in_bfloat16(family: StableDiffusion, tmp_path: Path) -> None:
    ((event,), encoding) = chosen(overflowing(family), tmp_path)
    assert isinstance(event, VaePrecisionChosen)
    assert event.latent_errors["fp16"] is None
    assert (event.precision, encoding.precision) == ("bf16", "bf16")
    mean, std = encoding.encode(images(family))
    assert torch.equal(mean, family.encode_images(images(family), torch.bfloat16)[0])
    assert std.isfinite().all()


def test_what_errs_by_more_than_the_bound_is_encoded_in_float32(
    family: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae_precision, "MAX_LATENT_ERROR", 0.1)
    ((event,), encoding) = chosen(overflowing(family), tmp_path)
    assert isinstance(event, VaePrecisionChosen)
    assert event.precision == "fp32"
    assert encoding.fingerprint == family.image_fingerprint()
    assert torch.equal(encoding.encode(images(family))[0], family.encode_images(images(family))[0])


def test_a_batch_that_overflows_later_is_encoded_in_float32(family: StableDiffusion) -> None:
    encode = image_encoding(overflowing(family), "fp16").encode
    assert not family.encode_images(images(family), torch.float16)[0].isfinite().all()
    for found, exact in zip(encode(images(family)), family.encode_images(images(family)), strict=True):
        assert torch.equal(found, exact)


def test_another_run_on_the_same_data_chooses_the_same_without_measuring(
    family: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    events, encoding = chosen(family, tmp_path / "here", Notes(tmp_path / "here", store))
    monkeypatch.setattr(vae_precision, "latent_errors", lambda *_: pytest.fail("measured again"))
    for place, notes in (("here", None), ("there", Notes(tmp_path / "there", store))):
        again, other = chosen(family, tmp_path / place, notes)
        assert [event.model_dump(exclude={"time"}) for event in again] == [
            event.model_dump(exclude={"time"}) for event in events
        ]
        assert other.fingerprint == encoding.fingerprint


# --- runs ------------------------------------------------------------------------------------------------------------


def loaded(spec: JobSpec, cache: Path, known: Precision | None) -> tuple[list[Event], Run]:
    return drain(load_run(spec, Sources(), new_accelerator(spec), cache, vae_precision=known))


def chosen_in(events: list[Event]) -> Iterator[str]:
    return (event.precision for event in events if isinstance(event, VaePrecisionChosen))


@pytest.mark.parametrize("crop", ["center", "random"])
def test_a_run_in_half_precision_has_latents_of_its_own(
    crop: str, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    method = {
        "type": "diffusion_dpo",
        "dataset": {"type": "local", "path": str(tiny_pairs)},
        "transform": {"crop": crop},
    }
    spec = tiny_spec(tiny_model, tiny_pairs, method=method, training=TRAINING).resolved("sd")
    events, run = loaded(spec, tmp_path, None)
    assert (list(chosen_in(events)), run.vae_precision) == (["fp16"], "fp16")
    batches = []
    for known in ("fp16", "fp32"):
        other_events, other = loaded(spec, tmp_path, known)  # pyright: ignore[reportArgumentType]
        assert not list(chosen_in(other_events))
        batches.append(next(iter(other.method.batches(other.actors, other.timesteps, 0))))
    own = next(iter(run.method.batches(run.actors, run.timesteps, 0)))
    assert torch.equal(own.x_0_w, batches[0].x_0_w)
    assert not torch.equal(own.x_0_w, batches[1].x_0_w)
    assert torch.allclose(own.x_0_w, batches[1].x_0_w, atol=0.05)
    checkpoint = run.save(tmp_path / "checkpoints")
    assert checkpoints.load_state(checkpoint).vae_precision == "fp16"
    assert vae_settled("auto", "cuda", checkpoint) == "fp16"
    assert vae_settled("fp32", "cuda", checkpoint) == "fp32"


def test_single_images_are_encoded_so_too(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "images.parquet", judged(12))
    method = {"type": "diffusion_kto", "dataset": {"type": "local", "path": str(data)}}
    training = {**TRAINING, "batch_size": 8, "validation_fraction": 0.0}
    spec = tiny_spec(tiny_model, tiny_pairs, method=method, training=training, evaluation={}).resolved("sd")
    events, run = loaded(spec, tmp_path / "cache", None)
    assert (list(chosen_in(events)), run.vae_precision) == (["fp16"], "fp16")


def test_a_run_in_float32_and_a_run_on_a_cpu_encode_in_float32(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    exact = {**TRAINING, "precision": "fp32"}
    events, run = loaded(tiny_spec(tiny_model, tiny_pairs, training=exact).resolved("sd"), tmp_path / "cache", None)
    assert (list(chosen_in(events)), run.vae_precision) == ([], "fp32")
    assert vae_settled("auto", "cpu", None) == "fp32"
    assert vae_settled("auto", "cuda", None) is None
    spec = tiny_spec(tiny_model, tiny_pairs, training=TRAINING, evaluation={})
    assert not list(chosen_in(list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))))


def test_what_is_tried_before_a_run_measures_for_it_and_a_resumed_run_keeps_it(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = vae_settled
    monkeypatch.setattr(
        "alignment_core.alignment.vae_settled", lambda asked, _, resumed: settled(asked, "cuda", resumed)
    )
    training = {**TRAINING, "start_checks": True}
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, evaluation={}, checkpoints={"every": 1})
    run = align(spec, tmp_path / "work", cache_dir=tmp_path / "cache")
    events: list[Event] = []
    for event in run:
        events.append(event)
        if event.type == "checkpoint_saved":
            run.close()
    types = [event.type for event in events]
    assert list(chosen_in(events)) == ["fp16"]
    assert types.index("vae_precision_chosen") < types.index("start_checked")
    monkeypatch.setattr(vae_precision, "latent_errors", lambda *_: pytest.fail("measured again"))
    (tmp_path / "cache" / "vae_precision").rename(tmp_path / "forgotten")
    resumed = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    assert not list(chosen_in(resumed))
    newest = checkpoints.latest(tmp_path / "work" / "checkpoints")
    assert newest is not None
    assert checkpoints.load_state(newest).vae_precision == "fp16"
