"""Timestep strategies: what is drawn, what it weighs, and that their state comes back."""

import pytest
import torch
from torch import Tensor

from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.diffusion.formulas import scaled_linear_abar
from alignment_core.errors import CheckpointError, ModelError
from alignment_core.load.timesteps import build_timesteps
from alignment_core.protocols import TimestepStrategy
from alignment_core.spec.timesteps import TIMESTEP_PRESETS, TimestepAware
from alignment_core.timesteps.strategies import UniformTimesteps
from alignment_core.timesteps.weights import MAX_CORRECTION, discounted_probabilities, logit_normal_density

ABAR = scaled_linear_abar()
PATH = DiscreteVP("epsilon", ABAR)
EVERY_T = torch.arange(1000)


def strategy(**parts: object) -> TimestepStrategy:
    return build_timesteps(TimestepAware.model_validate(parts), PATH)


def learning(**options: object) -> TimestepStrategy:
    weight = {"type": "variance", "min_samples": 2, "clip": None, "tnorm": "replace", **options}
    return strategy(num_bins=2, loss_weight=weight)


def feed(timesteps: TimestepStrategy, noisy: list[float], clean: list[float]) -> None:
    t = torch.tensor([999] * len(noisy) + [0] * len(clean))
    timesteps.observe(t, torch.tensor(noisy + clean))


def weights(timesteps: TimestepStrategy) -> list[float]:
    """Of the noisy and of the clean half."""
    return timesteps.loss_weight(torch.tensor([999, 0])).tolist()


def draws(timesteps: TimestepStrategy, num: int = 50) -> Tensor:
    return timesteps.sample(num, torch.Generator().manual_seed(3))


def test_without_settings_it_is_the_uniform_strategy_bit_for_bit() -> None:
    plain, aware = UniformTimesteps(1000), strategy()
    assert torch.equal(draws(plain), draws(aware))
    assert torch.equal(plain.reward_scale(EVERY_T), aware.reward_scale(EVERY_T))
    assert torch.equal(plain.loss_weight(EVERY_T), aware.loss_weight(EVERY_T))
    assert aware.state_dict() == {}


def test_the_paper_draws_noisy_steps_and_scales_the_logit_there() -> None:
    paper = build_timesteps(TIMESTEP_PRESETS["paper"], PATH)
    t = draws(paper, 20_000)
    assert (t >= 500).float().mean().item() == pytest.approx(0.629, abs=0.01)
    assert paper.reward_scale(torch.tensor([0, 500, 999])).tolist() == pytest.approx([1.0, 1.108951664, 2.0])
    assert torch.equal(paper.loss_weight(EVERY_T), torch.ones(1000))


def test_tables_speak_of_the_noisiest_bin_first() -> None:
    table = strategy(
        num_bins=2,
        sampler={"type": "table", "probabilities": [1.0, 0.0]},
        reward_scale={"type": "table", "values": [2.0, 3.0]},
        loss_weight={"type": "table", "values": [5.0, 7.0]},
    )
    assert bool((draws(table) >= 500).all())
    assert table.reward_scale(torch.tensor([999, 0])).tolist() == [2.0, 3.0]
    assert weights(table) == [5.0, 7.0]


def test_the_importance_correction_undoes_the_skew() -> None:
    corrected = strategy(sampler={"type": "discounted", "gamma": 0.8, "importance_correction": True})
    w = corrected.loss_weight(torch.arange(50, 1000, 100).flip(0)).double()
    assert torch.allclose(discounted_probabilities(0.8, 10) * w, torch.full((10,), 0.1, dtype=torch.float64))


def test_a_logit_normal_draws_what_its_density_says_and_can_be_corrected() -> None:
    sampler = {"type": "logit_normal", "mean": 0.5, "std": 1.0}
    t = draws(strategy(sampler=sampler), 100_000)
    by_hand = torch.sigmoid(0.5 + torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    shares = [torch.histc(x.double(), bins=10, min=0, max=1) / 100_000 for x in ((t + 0.5) / 1000, by_hand)]
    assert torch.allclose(*shares, atol=6e-3)
    corrected = strategy(sampler={**sampler, "importance_correction": True}).loss_weight(EVERY_T).double()
    of_bins = (logit_normal_density(0.5, 1.0, 1000) * corrected).reshape(10, 100).sum(dim=1)
    assert torch.allclose(of_bins, torch.full((10,), 0.1, dtype=torch.float64))


SAMPLERS: dict[str, tuple[dict[str, object], Tensor]] = {
    "uniform": ({"type": "uniform"}, torch.full((10,), 0.1, dtype=torch.float64)),
    "discounted": ({"type": "discounted", "gamma": 0.8}, discounted_probabilities(0.8, 10)),
    "table": (
        {"type": "table", "probabilities": [0.7, 0.3, *[0.0] * 8]},
        torch.tensor([0.7, 0.3, *[0.0] * 8]).double(),
    ),
    "logit_normal": ({"type": "logit_normal"}, logit_normal_density(0.0, 1.0, 1000).reshape(10, 100).sum(1).flip(0)),
    "skewed": (
        {"type": "logit_normal", "mean": 3.0, "std": 0.3},
        logit_normal_density(3.0, 0.3, 1000).reshape(10, 100).sum(1).flip(0),
    ),
}
LAST_OF_BINS = torch.arange(999, 0, -100)  # of bin 0 first
WEIGHTS = {
    "constant": {"type": "constant"},
    "mean1": {"type": "variance", "min_samples": 2, "tnorm": "replace"},
    "unclipped": {"type": "variance", "min_samples": 2, "tnorm": "replace", "clip": None},
    "direct": {"type": "variance", "min_samples": 2, "tnorm": "replace", "direction": "direct"},
    "add": {"type": "variance", "min_samples": 2, "tnorm": "add", "lambda_2": 0.5},
    "sum1": {"type": "variance", "min_samples": 2, "tnorm": "replace", "normalization": "sum1", "clip": None},
}


def seen_in(num_bins: int) -> tuple[Tensor, Tensor]:
    """Two samples of each of the first bins, whose variances differ."""
    sizes = torch.linspace(0.5, 4.0, num_bins).repeat_interleave(2)
    return LAST_OF_BINS[:num_bins].repeat_interleave(2), sizes * torch.tensor([1.0, -1.0]).repeat(num_bins)


@pytest.mark.parametrize("weight", ["constant", "mean1", "unclipped", "direct", "add"])
@pytest.mark.parametrize("corrects", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_what_multiplies_the_loss_averages_1_under_the_sampler(name: str, corrects: bool, weight: str) -> None:
    sampler, p = SAMPLERS[name]
    corrected = {} if name == "uniform" else {"importance_correction": corrects}
    timesteps = strategy(sampler={**sampler, **corrected}, loss_weight=WEIGHTS[weight])
    expected = 1.5 if weight == "add" else 1.0
    for num_bins in (0, 2, 10):  # no bin is known, some are, all are
        timesteps.observe(*seen_in(num_bins))
        w = timesteps.loss_weight(LAST_OF_BINS).double()
        assert bool(w.isfinite().all())
        assert (p * w).sum().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["uniform", "discounted"])
def test_sum1_makes_losses_k_times_smaller_from_the_first_step_on(name: str) -> None:
    timesteps = strategy(sampler=SAMPLERS[name][0], loss_weight=WEIGHTS["sum1"])
    before = timesteps.loss_weight(LAST_OF_BINS)
    timesteps.observe(*seen_in(10))
    after = timesteps.loss_weight(LAST_OF_BINS)
    assert before.tolist() == pytest.approx([0.1] * 10)
    assert after.sum().item() == pytest.approx(1)
    assert after.tolist() != before.tolist()


def test_the_correction_of_a_logit_normal_has_no_tails() -> None:
    for mean, bound in ((0.0, 7.2), (3.0, 2 * MAX_CORRECTION)):
        sampler = {"type": "logit_normal", "mean": mean, "importance_correction": True}
        assert strategy(sampler=sampler).loss_weight(EVERY_T).max().item() < bound


def test_a_bin_of_the_far_tail_is_not_waited_for() -> None:
    sampler = {"type": "logit_normal"}  # the cleanest of 50 bins is drawn once in 20,000 times
    timesteps = strategy(num_bins=50, sampler=sampler, loss_weight=WEIGHTS["mean1"])
    for bound in (200, 60):  # 88 % and 99 % of the draws
        seen = torch.arange(bound, 1000 - bound).repeat_interleave(2)
        timesteps.observe(seen, torch.tensor([1.0, -1.0]).repeat(len(seen) // 2) * seen)
        w = timesteps.loss_weight(EVERY_T).double()
        assert (w.unique().numel() > 1) == (bound == 60)
        assert (logit_normal_density(0.0, 1.0, 1000) * w).sum().item() == pytest.approx(1, rel=1e-5)
    assert w[0] == w[999] == 1.0


def test_weights_are_1_until_every_bin_that_is_drawn_has_its_samples() -> None:
    timesteps = learning(min_samples=4)
    feed(timesteps, [-2.0, 2.0, -2.0, 2.0], [-1.0, 1.0])
    assert weights(timesteps) == [1.0, 1.0]
    feed(timesteps, [], [-1.0, 1.0])
    assert weights(timesteps) == pytest.approx([2 / 3, 4 / 3])


def test_a_bin_that_is_never_drawn_is_not_waited_for_and_takes_no_share() -> None:
    sampler = {"type": "table", "probabilities": [0.5, 0.5, 0.0]}
    options = {"type": "variance", "min_samples": 2, "tnorm": "replace", "normalization": "sum1"}
    timesteps = strategy(num_bins=3, sampler=sampler, loss_weight=options)
    timesteps.observe(torch.tensor([999, 999, 500, 500]), torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert timesteps.loss_weight(torch.tensor([999, 500, 0])).tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_bounds_hold_back_a_bin_of_no_variance() -> None:
    timesteps = learning(clip=(0.5, 1.5))
    feed(timesteps, [-1.0, 1.0], [1.0, 1.0])
    assert weights(timesteps) == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"direction": "direct"}, [4 / 3, 2 / 3]),
        ({"power": "variance"}, [0.4, 1.6]),
        ({"normalization": "sum1"}, [1 / 3, 2 / 3]),
        ({"lambda_2": 0.5}, [1 / 3, 2 / 3]),
        ({"tnorm": "add", "lambda_2": 0.5}, [4 / 3, 5 / 3]),
    ],
)
def test_each_option_of_the_variance_weights_does_what_it_says(
    options: dict[str, object], expected: list[float]
) -> None:
    timesteps = learning(**options)
    feed(timesteps, [-2.0, 2.0], [-1.0, 1.0])
    assert weights(timesteps) == pytest.approx(expected)


def test_the_third_term_of_the_seed_has_the_value_of_the_reference() -> None:
    # L + lambda_1 L_reg + lambda_2 mean(w l), with variances 4, 1 and 1/4, lambda_2 = 0.1 and lambda_1 L_reg = 0.5 * 0.02
    options = {"type": "variance", "min_samples": 2, "lambda_2": 0.1}
    timesteps = strategy(num_bins=3, loss_weight=options)
    t = torch.tensor([999, 999, 500, 500, 0, 0])
    timesteps.observe(t, torch.tensor([-2.0, 2.0, -1.0, 1.0, -0.5, 0.5]))
    weighted = timesteps.loss_weight(t[::2]) * torch.tensor([0.5, 0.7, 0.9])
    # thirds of 1000 timesteps are 333, 333 and 334 wide, which moves mean1 by less than 1e-3
    assert weighted.mean().item() + 0.5 * 0.02 == pytest.approx(0.7885714286, abs=1e-4)


def test_the_state_comes_back_and_the_weights_with_it() -> None:
    one, other = learning(), learning()
    feed(one, [-2.0, 2.0], [-1.0, 1.0])
    other.load_state_dict(one.state_dict())
    assert weights(other) == weights(one) != [1.0, 1.0]
    for timesteps in (one, other):
        feed(timesteps, [3.0, 0.1], [0.3])
    assert weights(other) == weights(one)


def test_a_state_that_lost_a_tensor_is_refused() -> None:
    state = learning().state_dict()
    del state["second"]
    with pytest.raises(CheckpointError, match="'second' is missing"):
        learning().load_state_dict(state)


def test_more_bins_than_timesteps_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"timesteps\.num_bins is 20, and the model has 10 timesteps"):
        build_timesteps(TimestepAware(num_bins=20), DiscreteVP("epsilon", ABAR[:10]))
