"""Diffusion-KTO: the loss against vectors worked by hand, in float64, what is drawn, and what each image's loss sees."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from alignment_core.datasets.cache import TensorCache
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.diffusion.formulas import add_noise, regression_error
from alignment_core.methods.diffusion_kto import (
    Baseline,
    DiffusionKTO,
    ImageBatch,
    batch_mean,
    class_mean,
    kto_logit,
    kto_metrics,
    kto_metrics_vs_init,
    utility_loss,
)
from alignment_core.timesteps.strategies import UniformTimesteps
from alignment_core.training.guards import errors_rising
from alignment_core.training.metric_means import metric_means
from tests.alignment_core.methods.test_batches import LATENT, POLICY, REFERENCE, Scaling, actors_of, joined, same

G, LIKED = [6e-4, -2e-4, 2e-4, -2e-4], [True, False, True, False]


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- the loss ------------------------------------------------------------------------------------------------------


def test_the_loss_of_four_images_is_the_one_worked_by_hand() -> None:
    g, liked = f64(*G).requires_grad_(), torch.tensor(LIKED)
    baseline = batch_mean(g, torch.clone)
    z = kto_logit(g, baseline, liked, 1000.0)
    loss = utility_loss(z, "sigmoid").mean()
    loss.backward()
    assert baseline.item() == pytest.approx(1e-4, rel=1e-9)
    assert z.tolist() == pytest.approx([0.5, 0.3, 0.1, 0.3], rel=1e-9)
    assert loss.item() == pytest.approx(0.4259191119, rel=1e-9)
    assert g.grad is not None
    assert g.grad.tolist() == pytest.approx([-58.75092805, 61.11457792, -62.34401005, 61.11457792], rel=1e-9)
    assert utility_loss(z, "loss_averse").mean().item() == pytest.approx(1.556796033, rel=1e-9)


def test_the_baseline_of_a_batch_is_never_negative() -> None:
    assert batch_mean(f64(-1.0, -3.0), torch.clone).item() == 0


def test_the_baseline_of_classes_weighs_both_alike_and_may_be_negative() -> None:
    liked = torch.tensor([True, True, True, False])
    assert class_mean(f64(1.0, 2.0, 3.0, -6.0), liked, torch.clone).item() == pytest.approx(-2.0)
    assert class_mean(f64(1.0, 2.0, 3.0, 2.0), torch.ones(4, dtype=torch.bool), torch.clone).item() == pytest.approx(
        1.0
    )


def test_a_baseline_over_two_processes_is_that_of_all_their_images() -> None:
    g, liked = f64(*G), torch.tensor(LIKED)
    other = torch.stack([f64(5e-4, 3e-4).sum(), f64(2.0).squeeze()])
    assert batch_mean(g, lambda mine: mine + other).item() == pytest.approx((4e-4 + 8e-4) / 6)
    classes = torch.stack([f64(5e-4, 0.0), f64(1.0, 0.0)])
    assert class_mean(g, liked, lambda mine: mine + classes).item() == pytest.approx((13e-4 / 3 - 2e-4) / 2)


# --- the batches ---------------------------------------------------------------------------------------------------

NUM_LIKES, NUM_IMAGES = 3, 12


class Around:
    """Posteriors around each image's own number."""

    def read(self, indices: Sequence[int], draws: Sequence[Generator] | None) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.tensor(indices, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, *LATENT).clone()
        return mean, 0.01 * torch.ones_like(mean), torch.zeros(len(indices), 4)


@pytest.fixture
def images(tmp_path: Path) -> JudgedImages:
    """Twelve images, of which three are liked; the text embedding of image i is i + 1 everywhere, that of no prompt 0."""
    texts = TensorCache(tmp_path, {"kind": "text"})
    places = [
        texts.add(texts.key(bytes([index])), {"prompt_embeds": torch.full((2, 3), float(index))})
        for index in range(NUM_IMAGES + 1)
    ]
    rows = [ImageAnnotation(i + 1, f"prompt {i}", "", i < NUM_LIKES, f"{i}") for i in range(NUM_IMAGES)]
    return JudgedImages(rows, Around(), texts.reader(), torch.tensor(places[1:]), torch.tensor(places[:1]))


def method_of(images: JudgedImages) -> DiffusionKTO:
    return DiffusionKTO(
        images=images,
        beta=3.0,
        baseline="batch_mean",
        utility="sigmoid",
        like_weight=1.0,
        dislike_weight=1.0,
        like_probability=None,
        caption_dropout=0.0,
        batch_size=8,
        accumulation=3,
        seed=1,
    )


def drawn(method: DiffusionKTO, num_batches: int, first_step: int = 0) -> list[ImageBatch]:
    return list(islice(method.batches(actors_of(Scaling()), UniformTimesteps(1000), first_step), num_batches))


def share_of_likes(method: DiffusionKTO) -> float:
    (batch,) = drawn(replace(method, batch_size=2000, accumulation=1), 1)
    return batch.liked.float().mean().item()


def test_likes_are_drawn_with_the_probability_asked_for(images: JudgedImages) -> None:
    assert share_of_likes(replace(method_of(images), like_probability=0.8)) == pytest.approx(0.8, abs=0.04)
    assert share_of_likes(replace(method_of(images), like_probability=0.0)) == 0
    assert share_of_likes(method_of(images)) == pytest.approx(NUM_LIKES / NUM_IMAGES, abs=0.01)


def test_every_image_of_a_class_is_drawn(images: JudgedImages) -> None:
    (batch,) = drawn(replace(method_of(images), like_probability=0.5, batch_size=500, accumulation=1), 1)
    prompts = batch.conditioning["prompt_embeds"][:, 0, 0]
    assert set(prompts[batch.liked].tolist()) == {1, 2, 3}
    assert set(prompts[~batch.liked].tolist()) == set(range(4, 13))


def test_without_a_share_every_image_comes_once_an_epoch(images: JudgedImages) -> None:
    values = joined(drawn(method_of(images), 3))  # 24 images: two epochs
    prompts = values["prompt_embeds"][:, 0, 0].tolist()
    assert sorted(prompts[:12]) == sorted(prompts[12:]) == list(range(1, 13))
    assert prompts[:12] != prompts[12:]


def test_every_image_has_a_noise_and_a_timestep_of_its_own(images: JudgedImages) -> None:
    values = joined(drawn(method_of(images), 3))
    assert len({tuple(eps.flatten().tolist()) for eps in values["eps"]}) == 24
    assert len(set(values["timesteps"].tolist())) > 12
    means = values["x_0"].mean(dim=(1, 2, 3)).round()
    assert torch.equal(means, values["prompt_embeds"][:, 0, 0] - 1)  # each latent beside its own prompt


@pytest.mark.parametrize("like_probability", [None, 0.8], ids=["own share", "0.8"])
@pytest.mark.parametrize("cut", [(24, 1), (4, 6)], ids=["one micro-batch", "six"])
def test_a_step_has_the_same_draws_however_it_is_cut_up(
    images: JudgedImages, cut: tuple[int, int], like_probability: float | None
) -> None:
    one = replace(method_of(images), caption_dropout=0.5, like_probability=like_probability)
    other = replace(one, batch_size=cut[0], accumulation=cut[1])
    assert same(joined(drawn(one, 3)), joined(drawn(other, cut[1])))


def test_processes_share_out_the_images_of_a_step(images: JudgedImages) -> None:
    alone = replace(method_of(images), like_probability=0.8)
    shares = [replace(alone, batch_size=4, num_processes=2, rank=rank) for rank in (0, 1)]
    per_process = zip(*(drawn(share, 3) for share in shares), strict=True)
    assert same(joined(drawn(alone, 3)), joined([batch for micro in per_process for batch in micro]))


def test_a_resumed_step_has_the_draws_of_the_undisturbed_one(images: JudgedImages) -> None:
    method = replace(method_of(images), caption_dropout=0.5, like_probability=0.8)
    assert same(joined(drawn(method, 12)[9:]), joined(drawn(method, 3, first_step=3)))


# --- the loss of a batch -------------------------------------------------------------------------------------------


def test_the_loss_of_a_drawn_batch_is_the_one_worked_by_hand(images: JudgedImages) -> None:
    method = replace(method_of(images), like_weight=2.0, dislike_weight=0.5)
    family = Scaling()
    (batch,) = drawn(method, 1)
    loss = method.loss(actors_of(family), batch)
    x_t = add_noise(batch.x_0, batch.eps, family.path.abar[batch.timesteps])
    m, r = (regression_error(network * x_t, batch.eps) for network in (POLICY, REFERENCE))
    g = r - m
    z = torch.where(batch.liked, 1, -1) * 3.0 * (g - g.mean().clamp(min=0))
    expected = torch.where(batch.liked, 2.0, 0.5) * (1 - torch.sigmoid(z))
    assert torch.allclose(loss.per_example, expected, atol=1e-5)
    assert torch.allclose(loss.signal, z / 3.0, atol=1e-5)
    assert torch.allclose(loss.metrics["kl_baseline"], g.mean().clamp(min=0), atol=1e-6)
    assert torch.allclose(loss.metrics["chosen_gain"][batch.liked], g[batch.liked], atol=1e-5)
    assert loss.metrics["chosen_gain"][~batch.liked].isnan().all()
    assert loss.metrics["rejected_gain"][batch.liked].isnan().all()
    assert loss.predictions is not None
    assert loss.predictions.logit_scale == 3.0


@pytest.mark.parametrize("baseline", ["batch_mean", "class_mean", "mismatched"])
def test_a_policy_that_is_the_reference_loses_one_half_and_still_learns(
    images: JudgedImages, baseline: Baseline
) -> None:
    actors = actors_of(Scaling())
    bias = actors.denoiser.get_parameter("conv_out.bias")
    torch.nn.init.constant_(bias, REFERENCE)
    method = replace(method_of(images), baseline=baseline, beta=1000.0)
    (batch,) = drawn(method, 1)
    loss = method.loss(actors, batch)
    loss.per_example.mean().backward()
    assert torch.equal(loss.per_example, torch.full((8,), 0.5))
    assert torch.equal(loss.metrics["implicit_accuracy"], torch.full((8,), 0.5))
    assert bias.grad is not None
    assert bias.grad.abs().sum() > 0


def test_a_mismatched_baseline_asks_both_networks_with_the_prompt_of_the_image_before(images: JudgedImages) -> None:
    family = Scaling()
    method = replace(method_of(images), baseline="mismatched")
    (batch,) = drawn(method, 1)
    method.loss(actors_of(family), batch)
    prompts = batch.conditioning["prompt_embeds"]
    assert len(family.seen) == 4
    assert [torch.equal(seen, prompts) for _, _, seen in family.seen] == [True, True, False, False]
    assert all(torch.equal(seen, prompts.roll(1, dims=0)) for _, _, seen in family.seen[2:])


def test_errors_that_rise_are_seen_against_the_initial_model_right_after_a_copy() -> None:
    m, liked = torch.tensor([0.4, 0.8]), torch.tensor([True, False])
    told = kto_metrics(m, m, torch.zeros(2), liked) | kto_metrics_vs_init(m, m / 2, torch.tensor([-1.0, 1.0]), liked)
    step = metric_means(told)
    assert step["chosen_gain"] == step["rejected_gain"] == 0
    assert (step["margin_vs_init"], step["accuracy_vs_init"]) == (0, 0.5)
    message = errors_rising([step], max_ratio=1.5, window=1)
    assert message is not None
    assert "chosen images is 2 times" in message
