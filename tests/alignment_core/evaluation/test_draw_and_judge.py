"""What the probe and the report both rest on: who draws beside whom changes nothing, and every fault is named."""

from collections.abc import Generator, Sequence
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from alignment_core.errors import DivergenceError
from alignment_core.evaluation.compare import plan_comparison
from alignment_core.evaluation.draw_and_judge import Drawn, DrawPlan, Judges, draw_and_judge
from alignment_core.evaluation.probe import HeldOutProbe, plan_probe
from alignment_core.events import PhaseProgressed
from alignment_core.rewards.brightness import Brightness
from tests.alignment_core.evaluation.models import NoiseSampler, PromptLength

PLAN = plan_comparison(["a", "bb", "ccc"], seeds_per_prompt=2, batch_size=4, grid_prompts=1, seed=0)
JUDGES = Judges({"brightness": Brightness()}, PromptLength())


T = TypeVar("T")


def finished(run: Generator[PhaseProgressed, None, T]) -> T:
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def test_a_model_draws_and_scores_alone_what_it_does_beside_another() -> None:
    (alone,) = finished(draw_and_judge({"one": NoiseSampler(0.1)}, PLAN, JUDGES))
    _, beside = finished(draw_and_judge({"other": NoiseSampler(), "one": NoiseSampler(0.1)}, PLAN, JUDGES))
    for name in ("brightness", "prompt_following"):
        np.testing.assert_array_equal(alone.scores[name], beside.scores[name])
    np.testing.assert_array_equal(alone.images, beside.images)


def test_no_image_is_kept_of_a_prompt_that_is_not_shown() -> None:
    (drawn,) = finished(draw_and_judge({"one": NoiseSampler()}, DrawPlan(PLAN.prompts, PLAN.seeds, 4), JUDGES))
    assert len(drawn.images) == 0
    assert drawn.distances is not None
    assert drawn.distances.shape == (3, 1)


class Diverged:
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return torch.full((len(prompts), 3, 8, 8), torch.inf)


def probe_of(policy: NoiseSampler | Diverged, base: NoiseSampler) -> HeldOutProbe:
    plan = plan_probe(["a", "bb"], seeds_per_prompt=2, batch_size=3, seed=5)
    return HeldOutProbe(base, policy, plan, JUDGES, confidence=0.95, seed=5)


def test_a_probe_that_diverges_names_the_model_its_step_and_the_prompt() -> None:
    probe = probe_of(Diverged(), NoiseSampler())
    with pytest.raises(DivergenceError, match="policy of step 7 drew NaN or infinite pixels for the prompt 'a'"):
        finished(probe.measure(7))


def test_a_probe_draws_the_initial_model_once_and_at_the_policys_seeds() -> None:
    base, policy = NoiseSampler(), NoiseSampler(51 / 255)
    probe = probe_of(policy, base)
    first, second = finished(probe.measure(1)), finished(probe.measure(2))
    assert policy.asked == base.asked * 2
    assert first.rewards == second.rewards
    assert first.rewards["brightness"].gain == pytest.approx(0.2, abs=1e-4)


def test_the_diversity_of_a_probe_is_the_mean_distance_of_a_prompts_images() -> None:
    figures = finished(probe_of(NoiseSampler(), NoiseSampler()).measure(1))
    plan = plan_probe(["a", "bb"], seeds_per_prompt=2, batch_size=3, seed=5)
    (drawn,) = finished(draw_and_judge({"one": NoiseSampler()}, plan, JUDGES))
    assert isinstance(drawn, Drawn)
    assert drawn.distances is not None
    assert figures.diversity == figures.base_diversity == pytest.approx(float(drawn.distances.mean()))


def test_a_plan_without_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 prompts"):
        DrawPlan([], [], 1)
