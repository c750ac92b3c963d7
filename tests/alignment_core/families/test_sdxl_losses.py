"""What SDXL is trained on: the losses are the papers' formulas in float64, and each image is told its own file and crop."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from alignment_core.actors.actors import Actors, lora_actors
from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.posteriors import PairPosteriors
from alignment_core.datasets.rows import Annotation
from alignment_core.families.sdxl import StableDiffusionXL
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.methods.diffusion_kto import DiffusionKTO, ImageBatch
from alignment_core.methods.mapo import MaPO
from alignment_core.methods.pair_batches import PairBatch, PairDraws
from tests.alignment_core.families.test_sdxl import load

BETA, KAPPA, PROMPTS = 500.0, 2.0, ["a red circle", "a blue square"]
FRAMES_W, FRAMES_L = torch.tensor([[40, 30, 0, 3], [16, 16, 0, 0.0]]), torch.tensor([[20, 90, 5, 0], [16, 33, 0, 8.0]])


class Framed:
    """Posteriors whose frames are told apart."""

    def read(self, indices: Sequence[int], draws: Sequence[Generator] | None) -> PairPosteriors:
        zeros = torch.zeros(len(indices), 4, 8, 8)
        return PairPosteriors(zeros, zeros, zeros, zeros, FRAMES_W[list(indices)], FRAMES_L[list(indices)])


class NoText:
    """In place of cached prompts."""

    def read(self, places: Places) -> dict[str, Tensor]:
        return {"prompt_embeds": torch.zeros(len(places), 8, 24)}


def framed_pairs(family: StableDiffusionXL) -> PreferencePairs:
    rows = [Annotation(number, prompt, "", "", 1.0, None, prompt) for number, prompt in enumerate(PROMPTS)]
    places = torch.zeros(2, 2, dtype=torch.long)

    def told(frames: Tensor) -> dict[str, Tensor]:
        return family.image_conditioning(frames, 16)

    return PreferencePairs(rows, Framed(), cast(ShardReader, NoText()), places, places[:1], told)


@pytest.fixture
def family(tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> StableDiffusionXL:
    """In float64 throughout: what the library makes float32 is float64 here."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    found = load(tiny_sdxl)
    found.denoiser.to(torch.float64)
    found.path = replace(found.path, abar=found.path.abar.to(torch.float64))
    return found


@pytest.fixture
def actors(family: StableDiffusionXL) -> Actors:
    targets = ("to_q", "to_v", "to_out.0")
    found = lora_actors(
        family, family.denoiser, rank=2, alpha=4.0, target_modules=targets, seed=1, autocast=nullcontext
    )
    draws = Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in found.trainable().values():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
    return found


def drawn(*seeds: int) -> list[Tensor]:
    return [torch.randn(2, 4, 8, 8, generator=Generator().manual_seed(s), dtype=torch.float64) for s in seeds]


def pair_batch(family: StableDiffusionXL) -> PairBatch:
    x_0_w, x_0_l, eps = drawn(1, 2, 3)
    return PairBatch(
        x_0_w=x_0_w,
        x_0_l=x_0_l,
        eps=eps,
        timesteps=torch.tensor([40, 700]),
        reward_scale=torch.ones(2, dtype=torch.float64),
        conditioning=family.encode_prompts(PROMPTS),
        label=torch.ones(2, dtype=torch.float64),
        image_w=family.image_conditioning(FRAMES_W, 16),
        image_l=family.image_conditioning(FRAMES_L, 16),
    )


def errors_by_hand(actors: Actors, family: StableDiffusionXL, x_0: Tensor, eps: Tensor, frames: Tensor) -> list[Tensor]:
    """mean (eps - eps_hat)^2 of policy and reference: the U-Net asked as diffusers' SDXL scripts ask it."""
    t, unet = torch.tensor([40, 700]), cast(Any, actors.denoiser)
    abar_t = family.scheduler.alphas_cumprod.to(torch.float64)[t][:, None, None, None]
    told = family.encode_prompts(PROMPTS)
    sizes = torch.cat([frames, torch.full((2, 2), 16.0)], dim=1).to(torch.float64)
    added = {"text_embeds": told["pooled_prompt_embeds"], "time_ids": sizes}
    found = []
    for with_adapter in (True, False):
        (unet.enable_adapters if with_adapter else unet.disable_adapters)()
        x_t = abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * eps
        said = unet(x_t, t, encoder_hidden_states=told["prompt_embeds"], added_cond_kwargs=added).sample
        found.append(((said - eps) ** 2).mean(dim=(1, 2, 3)).detach())
    unet.enable_adapters()
    return found


def test_diffusion_dpo_is_its_formula(family: StableDiffusionXL, actors: Actors) -> None:
    batch = pair_batch(family)
    draws = PairDraws(framed_pairs(family), 0.0, 2, 1, 0)
    method = DiffusionDPO(draws, pair_loss("sigmoid"), BETA, "mean", half_factor=True, in_eps_units=False)
    loss = method.loss(actors, batch).per_example
    m_w, r_w = errors_by_hand(actors, family, batch.x_0_w, batch.eps, FRAMES_W)
    m_l, r_l = errors_by_hand(actors, family, batch.x_0_l, batch.eps, FRAMES_L)
    expected = -F.logsigmoid(-BETA / 2 * ((m_w - m_l) - (r_w - r_l)))
    assert loss.dtype is torch.float64
    assert torch.allclose(loss, expected, rtol=0, atol=1e-9)
    assert (expected - torch.log(torch.tensor(2.0))).abs().min() > 1e-3  # far from where nothing is learnt


def test_mapo_is_its_formula(family: StableDiffusionXL, actors: Actors) -> None:
    batch = pair_batch(family)
    draws = PairDraws(framed_pairs(family), 0.0, 2, 1, 0)
    loss = MaPO(draws, BETA, KAPPA, 3.0).loss(actors, batch).per_example
    m_w, _ = errors_by_hand(actors, family, batch.x_0_w, batch.eps, FRAMES_W)
    m_l, _ = errors_by_hand(actors, family, batch.x_0_l, batch.eps, FRAMES_L)
    likely_w, likely_l = (KAPPA * m / (torch.exp(KAPPA * m) - 1) for m in (m_w, m_l))
    expected = m_w - BETA * F.logsigmoid(3.0 * (likely_w - likely_l))
    assert torch.allclose(loss, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("baseline", ["batch_mean", "mismatched"])
def test_diffusion_kto_is_its_formula(baseline: Any, family: StableDiffusionXL, actors: Actors) -> None:
    x_0, eps = drawn(1, 3)
    liked = torch.tensor([True, False])
    batch = ImageBatch(
        x_0=x_0,
        eps=eps,
        timesteps=torch.tensor([40, 700]),
        reward_scale=torch.ones(2, dtype=torch.float64),
        conditioning=family.encode_prompts(PROMPTS),
        liked=liked,
        image_conditioning=family.image_conditioning(FRAMES_W, 16),
    )
    nowhere = torch.zeros(0, 2, dtype=torch.long)
    images = JudgedImages([], cast(Any, None), cast(ShardReader, NoText()), nowhere, nowhere)
    method = DiffusionKTO(images, BETA, baseline, "sigmoid", 1.0, 1.0, None, 0.0, 2, 1, 0)
    loss = method.loss(actors, batch).per_example
    m, r = errors_by_hand(actors, family, x_0, eps, FRAMES_W)
    if baseline == "batch_mean":
        q = (r - m).mean().clamp(min=0)
    else:
        PROMPTS.reverse()  # each image under the other's prompt, and told its own size
        try:
            other_m, other_r = errors_by_hand(actors, family, x_0, eps, FRAMES_W)
        finally:
            PROMPTS.reverse()
        q = (other_r - other_m).mean()
    expected = 1 - torch.sigmoid(torch.where(liked, 1, -1) * BETA * (r - m - q))
    assert torch.allclose(loss, expected, rtol=0, atol=1e-9)


def test_each_image_of_a_pair_is_told_its_own_file_and_crop(tiny_sdxl: Path) -> None:
    pairs = framed_pairs(load(tiny_sdxl))
    batch = pairs.batch([1, 0])
    assert batch.chosen_conditioning["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16], [40, 30, 0, 3, 16, 16]]
    assert batch.rejected_conditioning["time_ids"].tolist() == [[16, 33, 0, 8, 16, 16], [20, 90, 5, 0, 16, 16]]
    assert torch.equal(pairs.winners([1], [Generator()])[2]["time_ids"], batch.chosen_conditioning["time_ids"][:1])
