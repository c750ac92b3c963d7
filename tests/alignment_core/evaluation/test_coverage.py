"""Does a report's interval hold the truth as often as it says? A thousand simulated evaluations with a known difference."""

import numpy as np
import pytest

from alignment_core.evaluation.report import Bootstrap, compare_scores

STUDIES, PROMPTS, SEEDS, TRUTH = 1000, 100, 2, 0.25


@pytest.mark.slow
def test_intervals_cover_a_known_difference_in_93_to_97_percent_of_a_thousand_reports() -> None:
    draws, covered = np.random.default_rng(5), 0
    for study in range(STUDIES):
        prompts = draws.normal(size=(PROMPTS, 1))  # some are harder than others, for both models
        base = prompts + draws.normal(size=(PROMPTS, SEEDS))
        liked = draws.exponential(1.0, size=(PROMPTS, 1)) - 1  # and gains are skewed: a few prompts gain much
        policy = prompts + TRUTH + liked + draws.normal(size=(PROMPTS, SEEDS))
        interval = compare_scores("reward", base, policy, Bootstrap(400, 0.95, study, "bca")).gain_interval
        covered += interval.low <= TRUTH <= interval.high
    assert 0.93 <= covered / STUDIES <= 0.97, covered
