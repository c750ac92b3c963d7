"""Two models on the same prompts and seeds: what is drawn, and both results side by side."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from alignment_core.evaluation.draw_and_judge import Drawn, DrawPlan, Judges, draw_and_judge
from alignment_core.events import PhaseDivided, PhaseProgressed
from alignment_core.protocols import Sampler
from alignment_core.ranks import ALONE, Ranks
from alignment_core.seeds import seed_of


@dataclass(frozen=True)
class Comparison:
    """Both models on the same prompts and seeds.

    `shown` are the positions of the prompts whose images are kept. `scores` holds the judge as `prompt_following`, if
    there is one.
    """

    prompts: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    shown: tuple[int, ...]
    base: Drawn
    policy: Drawn


def seeds_of(seed: int, num_prompts: int, seeds_per_prompt: int) -> tuple[tuple[int, ...], ...]:
    """The seeds of every prompt, by the run's seed and the positions alone; more of either changes no earlier one.

    32 bits, so that a browser's JSON reads them exactly.
    """
    return tuple(
        tuple(seed_of(seed, "evaluation", prompt, number) % 2**32 for number in range(seeds_per_prompt))
        for prompt in range(num_prompts)
    )


def plan_comparison(
    prompts: Sequence[str], *, seeds_per_prompt: int, batch_size: int, grid_prompts: int, seed: int
) -> DrawPlan:
    """What is drawn for a report: `seeds_of` each prompt, and the images of `grid_prompts` of them kept."""
    seeds = seeds_of(seed, len(prompts), seeds_per_prompt)
    return DrawPlan(tuple(prompts), seeds, batch_size, shown=_spread(len(prompts), grid_prompts))


def compare(
    base: Sampler, policy: Sampler, plan: DrawPlan, judges: Judges, ranks: Ranks = ALONE
) -> Generator[PhaseProgressed | PhaseDivided, None, Comparison]:
    """Sample and score both models, prompt by prompt; yields and raises as `draw_and_judge`, returns the comparison."""
    drawn = yield from draw_and_judge({"base model": base, "policy model": policy}, plan, judges, ranks)
    return Comparison(tuple(plan.prompts), tuple(map(tuple, plan.seeds)), tuple(plan.shown), *drawn)


def _spread(num_prompts: int, num_shown: int) -> tuple[int, ...]:
    """Positions spread over the whole list: neighbours in a list of prompts are often alike."""
    num_shown = min(num_prompts, num_shown)
    return tuple(index * num_prompts // num_shown for index in range(num_shown))
