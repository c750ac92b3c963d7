"""Diffusion-DPO from pairs to the loss: what is drawn, who sees it, and the loss of drawn batches worked by hand."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Generator, Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors
from alignment_core.datasets.cache import TensorCache
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.posteriors import PairPosteriors
from alignment_core.datasets.rows import Annotation
from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.diffusion.formulas import Reduction, VPPrediction, scaled_linear_abar
from alignment_core.methods.diffusion_dpo import (
    DiffusionDPO,
    PairErrors,
    pair_metrics,
    preference_logit,
    sigmoid_loss,
)
from alignment_core.methods.diffusion_kto import ImageBatch
from alignment_core.methods.pair_batches import PairBatch, PairDraws
from alignment_core.protocols import SignalAgainst
from alignment_core.shapes import PerStep
from alignment_core.timesteps.strategies import UniformTimesteps

NUM_PAIRS, LABEL, BETA = 6, 0.8, 3.0
CHOSEN_STD, REJECTED_STD = 0.5, 0.25
LATENT, NUM_VALUES = (4, 2, 2), 16
BESIDE_TENSORS = ("conditioning", "image_w", "image_l", "image_conditioning", "visits")  # of a batch
POLICY, REFERENCE = 0.1, 0.04  # what each network multiplies its input by


class AroundOne:
    """Posteriors around 1 for the chosen images and around -1 for the rejected ones."""

    def read(self, indices: Sequence[int], draws: Sequence[Generator] | None) -> PairPosteriors:
        one = torch.ones(len(indices), *LATENT)
        frames = torch.zeros(len(indices), 4)
        return PairPosteriors(one, CHOSEN_STD * one, -one, REJECTED_STD * one, frames, frames)


@dataclass
class Scaling:
    """A family whose prediction is the input times the denoiser's bias; remembers what the networks were given."""

    prediction_type: VPPrediction = "epsilon"
    abar: Tensor = field(default_factory=lambda: scaled_linear_abar().float())
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seen: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    @property
    def path(self) -> DiscreteVP:
        return DiscreteVP(self.prediction_type, self.abar)

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        self.seen.append((x_t, timesteps, conditioning["prompt_embeds"]))
        return denoiser.get_parameter("conv_out.bias")[0] * x_t


class Rising:
    """Uniform timesteps whose reward scale rises from 1 to 2."""

    signal_against: SignalAgainst = "reference"
    step_probabilities: PerStep | None = None

    def sample(self, num: int, generator: Generator) -> Tensor:
        return UniformTimesteps(1000).sample(num, generator)

    def reward_scale(self, timesteps: Tensor) -> Tensor:
        return 1 + timesteps / 1000

    def loss_weight(self, timesteps: Tensor) -> Tensor:
        return torch.ones(len(timesteps))

    def observe(self, timesteps: Tensor, signal: Tensor) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def actors_of(family: Scaling) -> Actors:
    denoiser = UNet2DConditionModel(
        sample_size=2,
        block_out_channels=(2,),
        layers_per_block=1,
        norm_num_groups=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=2,
    )
    nn.init.constant_(denoiser.get_parameter("conv_out.bias"), REFERENCE)
    actors = full_actors(family, denoiser, autocast=nullcontext)
    nn.init.constant_(denoiser.get_parameter("conv_out.bias"), POLICY)
    return actors


@pytest.fixture
def pairs(tmp_path: Path) -> PreferencePairs:
    """Six pairs; the text embedding of pair i is i + 1 everywhere, and that of no prompt 0."""
    texts = TensorCache(tmp_path, {"kind": "text"})
    places = [
        texts.add(texts.key(bytes([index])), {"prompt_embeds": torch.full((2, 3), float(index))})
        for index in range(NUM_PAIRS + 1)
    ]
    rows = [Annotation(i + 1, f"prompt {i}", "", "", LABEL, None, f"{i}") for i in range(NUM_PAIRS)]
    return PreferencePairs(rows, AroundOne(), texts.reader(), torch.tensor(places[1:]), torch.tensor(places[:1]))


def draws_of(pairs: PreferencePairs) -> PairDraws:
    return PairDraws(pairs=pairs, caption_dropout=0.0, batch_size=3, accumulation=2, seed=1)


def method_of(pairs: PreferencePairs) -> DiffusionDPO:
    return DiffusionDPO(
        draws=draws_of(pairs),
        loss_of=sigmoid_loss,
        beta=BETA,
        reduction="mean",
        half_factor=True,
        in_eps_units=False,
    )


def drawn(draws: PairDraws, num_batches: int, first_step: int = 0) -> list[PairBatch]:
    """The first micro-batches from `first_step` on."""
    batches = draws.batches(actors_of(Scaling()), UniformTimesteps(1000), first_step)
    return list(islice(batches, num_batches))


def joined(batches: Sequence[PairBatch | ImageBatch]) -> dict[str, Tensor]:
    """Everything that micro-batches hold, as one batch."""
    parts = [{**vars(batch), **batch.conditioning} for batch in batches]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name not in BESIDE_TENSORS}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def correlation(one: Tensor, other: Tensor) -> float:
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()


# --- the loss ------------------------------------------------------------------------------------------------------


def logit_by_hand(x_0_w: Tensor, x_0_l: Tensor, eps: Tensor, abar_t: float, kind: str, factor: float) -> float:
    """-factor [(m_w - m_l) - (r_w - r_l)] of one pair, by loops over its two latents and the two networks."""
    signal, noise = abar_t**0.5, (1 - abar_t) ** 0.5

    def error(x_0: Tensor, network: float) -> float:
        target = eps if kind == "epsilon" else signal * eps - noise * x_0
        return ((network * (signal * x_0 + noise * eps) - target) ** 2).double().mean().item()

    policy = error(x_0_w, POLICY) - error(x_0_l, POLICY)
    return -factor * (policy - (error(x_0_w, REFERENCE) - error(x_0_l, REFERENCE)))


@pytest.mark.parametrize(
    ("kind", "rescale_v"),
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True)],
    ids=["epsilon", "v", "rescaled v"],
)
@pytest.mark.parametrize(
    ("half_factor", "reduction", "factor"),
    [
        (True, "mean", BETA / 2),
        (False, "mean", BETA),
        (True, "sum", NUM_VALUES * BETA / 2),
        (False, "sum", NUM_VALUES * BETA),
    ],
)
def test_the_loss_of_a_drawn_batch_is_the_one_worked_by_hand(
    pairs: PreferencePairs,
    kind: VPPrediction,
    rescale_v: bool,
    half_factor: bool,
    reduction: Reduction,
    factor: float,
) -> None:
    method = replace(
        method_of(pairs),
        half_factor=half_factor,
        reduction=reduction,
        in_eps_units=rescale_v,
        loss_of=sigmoid_loss,
    )
    family = Scaling(kind)
    actors = actors_of(family)
    batch = next(method.batches(actors, Rising(), 0))
    loss = method.loss(actors, batch)
    for i, t in enumerate(batch.timesteps.tolist()):
        abar_t = family.abar[t].item()
        u = logit_by_hand(batch.x_0_w[i], batch.x_0_l[i], batch.eps[i], abar_t, kind, factor)
        u = u * abar_t if rescale_v else u
        h = torch.tensor((1 + t / 1000) * u)
        expected = LABEL * nn.functional.softplus(-h) + (1 - LABEL) * nn.functional.softplus(h)
        assert loss.metrics["margin"][i].item() == pytest.approx(u, rel=1e-4, abs=2e-6 * factor)
        assert loss.per_example[i].item() == pytest.approx(expected.item(), rel=1e-4, abs=4e-6 * factor)
    assert torch.equal(loss.timesteps, batch.timesteps)
    assert torch.equal(loss.signal, loss.metrics["margin_unscaled"])


def test_the_gains_are_the_implicit_rewards_of_the_reference() -> None:
    beta = 5000.0
    m_w, m_l, r_w, r_l = torch.tensor([0.1, 0.101, 0.1004, 0.1008], dtype=torch.float64).split(1)
    metrics = pair_metrics(PairErrors(m_w, m_l, r_w, r_l), preference_logit(m_w, m_l, r_w, r_l, beta))
    assert metrics["chosen_gain"].item() * beta / 2 == pytest.approx(1.0, rel=1e-9)
    assert metrics["rejected_gain"].item() * beta / 2 == pytest.approx(-0.5, rel=1e-9)
    assert metrics["margin_unscaled"].item() * beta / 2 == pytest.approx(1.5, rel=1e-9)
    assert metrics["margin"].item() == pytest.approx(1.5, rel=1e-9)


def test_both_members_and_both_networks_see_the_same_noise_timestep_and_prompt(pairs: PreferencePairs) -> None:
    family = Scaling()
    actors, method = actors_of(family), method_of(pairs)
    batch = next(method.batches(actors, UniformTimesteps(1000), 0))
    method.loss(actors, batch)
    assert len(family.seen) == 2
    abar = family.abar[batch.timesteps].reshape(-1, 1, 1, 1)
    for x_t, timesteps, prompts in family.seen:
        for member, x_0 in zip(x_t.chunk(2), (batch.x_0_w, batch.x_0_l), strict=True):
            eps = (member - abar.sqrt() * x_0) / (1 - abar).sqrt()
            assert torch.allclose(eps, batch.eps, atol=1e-4)
        for member in timesteps.chunk(2):
            assert torch.equal(member, batch.timesteps)
        for member in prompts.chunk(2):
            assert torch.equal(member, batch.conditioning["prompt_embeds"])


# --- the draws -----------------------------------------------------------------------------------------------------


def test_latents_are_drawn_from_their_own_posteriors_and_apart_from_the_noise(pairs: PreferencePairs) -> None:
    (batch,) = drawn(replace(draws_of(pairs), batch_size=200, accumulation=1), 1)
    z_w, z_l = (batch.x_0_w - 1) / CHOSEN_STD, (batch.x_0_l + 1) / REJECTED_STD
    for z in (z_w, z_l, batch.eps):
        assert abs(z.mean().item()) < 0.1
        assert z.std().item() == pytest.approx(1, abs=0.1)
    for one, other in ((z_w, z_l), (z_w, batch.eps), (z_l, batch.eps)):
        assert abs(correlation(one, other)) < 0.1


def test_pairs_of_a_step_and_steps_of_a_run_share_no_draw(pairs: PreferencePairs) -> None:
    values = joined(drawn(draws_of(pairs), 4))
    assert len({tuple(eps.flatten().tolist()) for eps in values["eps"]}) == 12
    assert len({tuple(x_0.flatten().tolist()) for x_0 in values["x_0_w"]}) == 12
    assert not torch.equal(values["timesteps"][:6], values["timesteps"][6:])


def test_every_draw_follows_from_the_seed(pairs: PreferencePairs) -> None:
    one, other = (joined(drawn(replace(draws_of(pairs), seed=seed), 4)) for seed in (1, 2))
    for name in ("eps", "x_0_w", "x_0_l", "timesteps", "prompt_embeds"):
        assert not torch.equal(one[name], other[name])
    assert same(one, joined(drawn(draws_of(pairs), 4)))


def test_timesteps_are_those_of_the_strategy(pairs: PreferencePairs) -> None:
    (batch,) = drawn(replace(draws_of(pairs), batch_size=400, accumulation=1), 1)
    assert batch.timesteps.min() < 50
    assert batch.timesteps.max() >= 950
    assert batch.timesteps.float().mean().item() == pytest.approx(499.5, abs=50)


@pytest.mark.parametrize("cut", [(6, 1), (2, 3), (1, 6)])
def test_a_step_has_the_same_draws_however_it_is_cut_up(pairs: PreferencePairs, cut: tuple[int, int]) -> None:
    batch_size, accumulation = cut
    other = replace(draws_of(pairs), batch_size=batch_size, accumulation=accumulation, caption_dropout=0.5)
    one = replace(draws_of(pairs), caption_dropout=0.5)
    assert same(joined(drawn(one, 2 * one.accumulation)), joined(drawn(other, 2 * accumulation)))


def test_processes_share_out_the_step_of_one(pairs: PreferencePairs) -> None:
    alone = replace(draws_of(pairs), batch_size=4, accumulation=2)
    shares = [replace(alone, batch_size=2, num_processes=2, rank=rank) for rank in (0, 1)]
    per_process = zip(*(drawn(share, 4) for share in shares), strict=True)
    assert same(joined(drawn(alone, 4)), joined([batch for micro in per_process for batch in micro]))


def test_a_resumed_step_has_the_draws_of_the_undisturbed_one(pairs: PreferencePairs) -> None:
    method = replace(draws_of(pairs), caption_dropout=0.5)
    assert same(joined(drawn(method, 8)[6:]), joined(drawn(method, 2, first_step=3)))


def test_every_pair_comes_once_an_epoch_and_epochs_are_shuffled_anew(pairs: PreferencePairs) -> None:
    values = joined(drawn(draws_of(pairs), 8))  # six pairs a step: a step is an epoch
    epochs = [tuple(epoch.tolist()) for epoch in values["prompt_embeds"][:, 0, 0].split(NUM_PAIRS)]
    assert all(sorted(epoch) == [1, 2, 3, 4, 5, 6] for epoch in epochs)
    assert len(set(epochs)) == 4
    assert (1, 2, 3, 4, 5, 6) not in epochs


def test_epochs_run_into_each_other(pairs: PreferencePairs) -> None:
    values = joined(drawn(replace(draws_of(pairs), batch_size=4, accumulation=1), 3))
    prompts = values["prompt_embeds"][:, 0, 0].tolist()
    assert sorted(prompts[:6]) == sorted(prompts[6:]) == [1, 2, 3, 4, 5, 6]


# --- prompts and labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("caption_dropout", "low", "high"), [(0.0, 0.0, 0.0), (0.25, 0.18, 0.32), (1.0, 1.0, 1.0)])
def test_the_share_of_pairs_without_their_prompt_is_the_one_asked_for(
    pairs: PreferencePairs, caption_dropout: float, low: float, high: float
) -> None:
    method = replace(draws_of(pairs), batch_size=600, accumulation=1, caption_dropout=caption_dropout)
    values = joined(drawn(method, 1))
    dropped = (values["prompt_embeds"] == 0).all(dim=2).all(dim=1)
    assert low <= dropped.float().mean().item() <= high
    kept = values["prompt_embeds"][~dropped]
    with_all = joined(drawn(replace(method, caption_dropout=0.0), 1))["prompt_embeds"]
    assert torch.equal(kept, with_all[~dropped])


def test_labels_reach_the_batch(pairs: PreferencePairs) -> None:
    values = joined(drawn(draws_of(pairs), 2))
    assert torch.equal(values["label"], torch.full((6,), LABEL))
