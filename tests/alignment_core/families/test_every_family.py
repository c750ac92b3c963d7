"""What holds of every model family: its encoders, sampler and files are diffusers', and all that trains, trains it."""

import itertools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.diffusion.path import Grid
from alignment_core.diffusion.path import Path as NoisePath
from alignment_core.families import autoencoder
from alignment_core.families.family import Family
from alignment_core.families.keys import LoraLayer
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.load.test_combinations import (
    ALLOWED,
    METHODS,
    REFERENCES,
    TIMESTEPS,
    Folders,
    assert_it_trains,
    load,
    spec_of,
)

torch.set_num_threads(1)

PROMPTS, SEEDS = ["a red circle", "a blue square", "a red circle"], [1, 2, 1]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=list(TINY))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def family(model: Path) -> Family:
    return family_of(model)


def family_of(model: Path) -> Family:
    source, dtype = LocalSource(path=str(model)), torch.float32
    return load_model(source, device=CPU, frozen_dtype=dtype, denoiser_dtype=dtype)


def of_diffusers(model: Path) -> Any:
    index = json.loads((model / "model_index.json").read_text())
    absent = {name: None for name, value in index.items() if value == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(model, local_files_only=True, use_safetensors=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(family: Family, denoiser: Any, scale: float = 1.0, num_steps: int = 3) -> Tensor:
    steps = {"num_inference_steps": num_steps, "guidance_scale": scale}
    return family.sample(denoiser, PROMPTS, SEEDS, **steps, autocast=nullcontext)


def noise_of(family: Family) -> Tensor:
    shape = family.latent_shape(family.resolution)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])


def lora_of(family: Family, seed: int = 0) -> Actors:
    targets = ("to_q", "to_v")
    return lora_actors(
        family, family.denoiser, rank=2, alpha=2.0, target_modules=targets, seed=seed, autocast=nullcontext
    )


def inputs_of(family: Family, num: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    t = torch.tensor([family.path.num_timesteps // 10, family.path.num_timesteps * 9 // 10])
    x_t = torch.randn(num, *family.latent_shape(family.resolution), generator=torch.Generator().manual_seed(7))
    return x_t, family.path.time(t), family.sampling_conditioning(PROMPTS[:num])


def nudge(actors: Actors, size: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in actors.trainable().values():
            parameter += size * torch.randn(parameter.shape, generator=generator)


# --- what the family is ----------------------------------------------------------------------------------------------


def test_every_family_that_is_served_is_in_the_suite() -> None:
    served = {name for name, family in FAMILIES.items() if family.is_served}
    assert served == {name.split("_")[0] for name in TINY}


def test_it_is_a_family(family: Family) -> None:
    assert isinstance(family, Family)
    assert isinstance(family.path, NoisePath)
    assert isinstance(family.path.grid(4, 0.5), Grid)
    assert next(iter(family.components().values())) is family.denoiser


def test_images_come_back_from_latents(family: Family, model: Path) -> None:
    """Encoding and decoding scale and shift in opposite ways, as the VAE's config says."""
    vae = of_diffusers(model).vae
    pixels = torch.rand(2, 3, family.resolution, family.resolution, generator=torch.Generator().manual_seed(3))
    mean, std = family.encode_images(2 * pixels - 1)
    with torch.no_grad():
        posterior = vae.encode(2 * pixels - 1).latent_dist
        plain = vae.decode(posterior.mean).sample
    assert mean.shape[1:] == family.latent_shape(family.resolution)
    assert torch.allclose(std / posterior.std, (std / posterior.std).mean().expand_as(std), rtol=1e-4)
    assert torch.allclose(family.decode(mean), (plain / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_a_large_batch_is_decoded_and_encoded_in_slices_of_the_same_images(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = family.latent_shape(family.resolution)
    latents = torch.randn(5, *shape, generator=torch.Generator().manual_seed(3))
    parts = list(latents.split(2))
    whole = decoded_with_gradient(family, latents)
    apart = [decoded_with_gradient(family, part) for part in parts]
    seen: list[int] = []
    decode = family.vae.decode  # pyright: ignore[reportAttributeAccessIssue]  (every family's)
    monkeypatch.setattr(family.vae, "decode", lambda z, **options: (seen.append(len(z)), decode(z, **options))[1])  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(autoencoder, "PLACES_DECODED", 2 * shape[1] * shape[2] + 1)
    monkeypatch.setattr(autoencoder, "PLACES_ENCODED", 2 * shape[1] * shape[2] + 1)
    sliced = decoded_with_gradient(family, latents)
    assert set(seen) == {1, 2}
    for index in (0, 1):  # images and gradients
        assert torch.equal(sliced[index], torch.cat([part[index] for part in apart]))
        assert torch.allclose(sliced[index], whole[index], atol=1e-5)
    pixels = 2 * whole[0] - 1
    assert all(
        torch.equal(found, torch.cat(expected))
        for found, expected in zip(
            family.encode_images(pixels),
            zip(*[family.encode_images(part) for part in pixels.split(2)], strict=True),
            strict=True,
        )
    )


def decoded_with_gradient(family: Family, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The images, and the gradient of their sum with respect to the latents."""
    given = latents.clone().requires_grad_(True)
    images = family.decode(given)
    images.sum().backward()
    assert given.grad is not None
    return images.detach(), given.grad


def test_gradients_flow_through_the_decoder(family: Family) -> None:
    latents = noise_of(family)[:1].requires_grad_(True)
    family.decode(latents).mean().backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()


def test_conditioning_is_rows_of_prompts_and_a_row_of_none(family: Family) -> None:
    several, none = family.encode_prompts(PROMPTS), family.encode_empty()
    assert {len(value) for value in several.values()} == {len(PROMPTS)}
    assert {name: value.shape[1:] for name, value in none.items()} == {
        name: value.shape[1:] for name, value in several.items()
    }
    for value in several.values():
        assert torch.allclose(value[0], value[2], atol=1e-6)


@pytest.mark.parametrize(
    "prompt", ["", " ", "red " * 500, "ein Kreis 🔴 赤い円 \u202e\x00"], ids=["empty", "blank", "long", "unicode"]
)
def test_a_prompt_may_be_empty_endless_or_of_any_script(prompt: str, family: Family) -> None:
    """It is cut or padded to the length of every other, and does not change what stands beside it."""
    alone, beside = family.encode_prompts([PROMPTS[0]]), family.encode_prompts([PROMPTS[0], prompt])
    for name, value in beside.items():
        assert value.isfinite().all(), name
        assert value.shape[1:] == alone[name].shape[1:]
        assert torch.allclose(value[0], alone[name][0], atol=1e-6), name


def test_the_same_seed_draws_the_same_image_whatever_the_batch(family: Family) -> None:
    images = draw(family, family.denoiser)
    assert images.shape == (3, 3, family.resolution, family.resolution)
    assert torch.allclose(images[0], images[2], atol=1e-5)
    assert not torch.allclose(images[0], images[1], atol=1e-2)


# --- the path and its grid -------------------------------------------------------------------------------------------


def test_what_is_mixed_in_is_found_again(family: Family) -> None:
    path = family.path
    t = torch.linspace(1, path.num_timesteps - 2, 5).long()
    x_0, eps = (torch.randn(5, *family.latent_shape(family.resolution)) for _ in range(2))
    x_t, target = path.noisy(x_0, eps, t), path.target(x_0, eps, t)
    assert torch.allclose(path.eps(x_t, target, t), eps, atol=1e-3)
    assert torch.allclose(path.x_0(x_t, target, t), x_0, rtol=1e-2, atol=2e-2)


def test_a_distance_in_noise_is_the_distance_times_its_scale(family: Family) -> None:
    path = family.path
    t = torch.linspace(1, path.num_timesteps - 2, 5).long()
    x_t, one, other = (torch.randn(5, *family.latent_shape(family.resolution)) for _ in range(3))
    in_noise = (path.eps(x_t, one, t) - path.eps(x_t, other, t)).square().flatten(1).mean(1)
    plain = (one - other).square().flatten(1).mean(1)
    assert torch.allclose(in_noise, path.eps_scale(t) * plain, rtol=1e-4, atol=1e-7)


def test_the_signal_to_noise_ratio_falls_with_the_level(family: Family) -> None:
    snr = family.path.snr
    assert snr.dtype == torch.float64
    assert (snr.diff() <= 0).all()
    assert (snr[0] > 1) & (snr[-1] < 1)


# --- what is trained -------------------------------------------------------------------------------------------------


def test_policy_and_reference_agree_bit_for_bit_at_the_start(model: Path) -> None:
    for build in (lora_of, lambda family: full_actors(family, family.denoiser, autocast=nullcontext)):
        family = family_of(model)
        actors = build(family)
        inputs = inputs_of(family)
        policy, reference = actors.predict_policy(*inputs).detach(), actors.predict_reference(*inputs)
        # torch multiplies a transposed input by a weight with a gradient in another way, which some CPUs add in another order
        torch.testing.assert_close(policy, reference, rtol=0, atol=2e-6)
        for parameter in actors.trainable().values():
            parameter.requires_grad_(False)
        assert torch.equal(actors.predict_policy(*inputs), reference)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_policy_comes_back_from_disk_exactly(kind: str, model: Path, tmp_path: Path) -> None:
    def actors_of(family: Family) -> Actors:
        return lora_of(family) if kind == "lora" else full_actors(family, family.denoiser, autocast=nullcontext)

    family, other = family_of(model), family_of(model)
    trained, fresh = actors_of(family), actors_of(other)
    nudge(trained)
    family.save_policy(trained, tmp_path)
    other.load_policy(fresh, tmp_path)
    for name, parameter in trained.trainable().items():
        assert torch.equal(fresh.trainable()[name], parameter), name


def test_diffusers_draws_what_was_trained(model: Path, tmp_path: Path) -> None:
    """A fine-tune is a folder that diffusers opens; a LoRA is a file that its own loader reads, to the same images."""
    family = family_of(model)
    actors = lora_of(family)
    nudge(actors, 0.3)
    family.save_policy(actors, tmp_path / "lora")
    reloaded = family_of(model)
    pipeline = of_diffusers(model)
    pipeline.load_lora_weights(tmp_path / "lora", weight_name="pytorch_lora_weights.safetensors")
    denoiser = getattr(pipeline, next(iter(reloaded.components())))
    ours, theirs = draw(family, actors.denoiser), draw(reloaded, denoiser)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, draw(reloaded, reloaded.denoiser), atol=1e-3)


# --- the matrix ------------------------------------------------------------------------------------------------------


def covering() -> list[tuple[str, str, str]]:
    """Each method with each reference and each strategy that it takes, in as few combinations as do."""
    chosen: list[tuple[str, str, str]] = []
    seen: set[tuple[str, str]] = set()
    turn = itertools.count()
    for method, reference in itertools.product(METHODS, REFERENCES):
        fit = [timesteps for m, r, timesteps in ALLOWED if (m, r) == (method, reference)]
        if fit:
            new = [timesteps for timesteps in fit if (method, timesteps) not in seen] or fit
            timesteps = new[next(turn) % len(new)]
            seen.add((method, timesteps))
            chosen.append((method, reference, timesteps))
    return chosen + [
        (m, r, t)
        for m, r, t in ALLOWED
        if (m, t) not in seen and not seen.add((m, t))  # pyright: ignore[reportUnusedExpression]
    ]


def test_the_matrix_has_every_method_with_every_plug_in_that_it_takes() -> None:
    found = covering()
    assert set(found) <= set(ALLOWED)
    assert {(m, r) for m, r, _ in found} == {(m, r) for m, r, _ in ALLOWED}
    assert {(m, t) for m, _, t in found} == {(m, t) for m, _, t in ALLOWED}
    assert {t for _, _, t in found} == set(TIMESTEPS)


# One model of each family; `load/test_combinations.py` has every combination on SD with epsilon.
IN_THE_MATRIX = ("sd_2", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module", params=IN_THE_MATRIX)
def one_of_each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


def test_the_matrix_has_every_family() -> None:
    assert {name.split("_")[0] for name in IN_THE_MATRIX} == {name.split("_")[0] for name in TINY}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reference", "timesteps"), covering())
def test_every_method_and_every_plug_in_trains_every_family(
    method: str, reference: str, timesteps: str, one_of_each: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    folders = Folders(one_of_each, tiny_pairs, cache_dir)
    assert_it_trains(load(spec_of(folders, method, reference, timesteps), folders), method)


def test_images_are_encoded_in_half_under_another_name_and_by_weights_that_stay_as_they_are(family: Family) -> None:
    pixels = torch.rand(2, 3, family.resolution, family.resolution, generator=torch.Generator().manual_seed(3)) * 2 - 1
    before = {name: value.clone() for name, value in family.vae.state_dict().items()}  # pyright: ignore[reportAttributeAccessIssue]
    exact = family.encode_images(pixels)
    names = {family.image_fingerprint()}
    for dtype, error in ((torch.float16, 1e-2), (torch.bfloat16, 1e-1)):
        found = family.encode_images(pixels, dtype)
        for half, full in zip(found, exact, strict=True):
            assert half.dtype == torch.float32
            assert 0 < float((half - full).abs().max()) < error * float(full.abs().max())
        names.add(family.image_fingerprint(dtype))
    assert len(names) == 3
    after = family.vae.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())
    for one, other in zip(family.encode_images(pixels), exact, strict=True):
        assert torch.equal(one, other)


def test_neither_the_precision_of_a_run_nor_its_text_encoders_have_images_encoded_again(
    model: Path, tmp_path: Path
) -> None:
    source, bf16, fp16 = LocalSource(path=str(model)), torch.bfloat16, torch.float16
    one = load_model(source, device=CPU, frozen_dtype=bf16, denoiser_dtype=bf16)
    other = load_model(source, device=CPU, frozen_dtype=fp16, denoiser_dtype=fp16)
    assert one.image_fingerprint() == other.image_fingerprint()
    assert one.prompt_fingerprint() != other.prompt_fingerprint()
    pixels = torch.rand(1, 3, one.resolution, one.resolution) * 2 - 1
    for before, after in zip(one.encode_images(pixels), other.encode_images(pixels), strict=True):
        assert torch.equal(before, after)  # which is why the key may leave the precision out
    images, prompts = one.image_fingerprint(), one.prompt_fingerprint()
    one.merged = {"text_encoder": {"layer": LoraLayer(torch.ones(1, 1), torch.ones(1, 1), 1.0)}}
    assert one.image_fingerprint() == images
    assert one.prompt_fingerprint() != prompts
    config = model / "vae" / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b" ")
    try:
        assert other.image_fingerprint() != images
    finally:
        config.write_bytes(before)
