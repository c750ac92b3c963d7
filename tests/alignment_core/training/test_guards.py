"""The rules of the guards: each fires on what it is for, with the numbers, and is silent on what is healthy."""

import pytest

from alignment_core.evaluation.probe_figures import Line, ProbeFigures
from alignment_core.training import guards


def figures(step: int = 20, *, diversity: float | None = 0.1, **lines: Line) -> ProbeFigures:
    judge = lines.pop("prompt_following", None)
    return ProbeFigures(
        step=step, num_prompts=16, rewards=lines, prompt_following=judge, diversity=diversity, base_diversity=0.1
    )


def line(gain: float, *, error: float = 0.01, spread: float = 0.1) -> Line:
    return Line(mean=0.5 + gain, gain=gain, low=gain - error, high=gain + error, spread=spread)


UP, DOWN, SAME = line(0.2), line(-0.2), line(0.0)


def saturation(steps: list[dict[str, float]], window: int = 3) -> str | None:
    return guards.margin_saturation(steps, max_loss=0.01, min_accuracy=0.999, max_clamped=0.95, window=window)


def test_a_window_that_is_not_full_says_nothing() -> None:
    done = {"loss": 0.001, "implicit_accuracy": 1.0}
    assert saturation([done, done]) is None
    assert saturation([done, done, done]) is not None


def test_saturation_needs_both_a_vanished_loss_and_every_pair_told_apart() -> None:
    assert saturation([{"loss": 0.001, "implicit_accuracy": 0.9}] * 3) is None
    assert saturation([{"loss": 0.3, "implicit_accuracy": 1.0}] * 3) is None
    told = saturation([{"loss": 0.69, "implicit_accuracy": 0.5}] + [{"loss": 0.004, "implicit_accuracy": 1.0}] * 3)
    assert told is not None
    assert "over 3 steps the loss is 0.004" in told


def test_a_loss_below_zero_is_the_robust_one_and_still_learns() -> None:
    assert saturation([{"loss": -0.6, "implicit_accuracy": 1.0}] * 3) is None


def test_clamped_ratios_saturate_though_the_loss_cannot_vanish() -> None:
    told = saturation([{"loss": 0.69, "implicit_accuracy": 1.0, "clamped": 0.99}] * 3)
    assert told is not None
    assert "99.0% of the ratios are clamped" in told


def errors(chosen: float, rejected: float, **more: float) -> dict[str, float]:
    """Errors of a policy whose initial model has 0.1 on both."""
    return {
        "chosen_error": chosen,
        "rejected_error": rejected,
        "chosen_gain": 0.1 - chosen,
        "rejected_gain": 0.1 - rejected,
        **more,
    }


@pytest.mark.parametrize(
    ("chosen", "rejected", "fires"), [(0.2, 0.3, True), (0.1, 0.5, False), (0.14, 0.14, False), (0.09, 0.09, False)]
)
def test_both_errors_must_have_risen_by_the_factor(chosen: float, rejected: float, fires: bool) -> None:
    told = guards.errors_rising([errors(chosen, rejected)] * 2, max_ratio=1.5, window=2)
    assert (told is not None) == fires


def test_errors_are_compared_with_the_initial_model_where_the_reference_has_moved_along() -> None:
    moved = errors(0.3, 0.3, chosen_gain_vs_init=-0.2, rejected_gain_vs_init=-0.2)
    followed = {**moved, "chosen_gain": 0.0, "rejected_gain": 0.0}
    told = guards.errors_rising([followed] * 2, max_ratio=1.5, window=2)
    assert told is not None
    assert "3 times" in told


def drift(steps: list[dict[str, float]]) -> str | None:
    return guards.reference_drift(steps, max_drift=0.05, max_mean_shift=0.5, window=2)


def test_what_is_measured_on_fixed_winners_is_judged_at_once_and_what_changes_with_the_batch_over_the_window() -> None:
    assert drift([{"ref_drift_mse_gap": 0.06}]) is not None
    assert drift([{"ref_drift_mse_gap": 0.06}, {}]) is None
    assert drift([{"ref_drift_batch_eps_dist": 0.01}, {"ref_drift_batch_eps_dist": 0.06}]) is None
    assert drift([{"ref_drift_batch_eps_dist": 0.06}] * 2) is not None
    assert drift([{"ref_drift_mse_gap": -1.0}]) is None


def test_online_methods_are_judged_by_the_shift_they_tell() -> None:
    assert drift([{"mean_shift": 0.6, "kl": 0.18}] * 2) is not None
    assert drift([{"mean_shift": 0.4, "kl": 0.08}] * 2) is None
    assert drift([{"kl": 0.08}] * 2) is not None


def test_diversity_must_stay_low_for_the_window() -> None:
    low, fine = figures(diversity=0.06), figures(diversity=0.09)
    assert guards.diversity([low], min_ratio=0.7, window=1) is not None
    assert guards.diversity([fine, low], min_ratio=0.7, window=2) is None
    told = guards.diversity([low, low], min_ratio=0.7, window=2)
    assert told is not None
    assert "60.0% of it (below 70.0%)" in told
    assert guards.diversity([figures(diversity=None)], min_ratio=0.7, window=1) is None


def hacked(*probes: ProbeFigures, window: int = 1, trained: frozenset[str] = frozenset()) -> str | None:
    return guards.reward_hacking(probes, risen="colour", trained=trained, max_drop=0.8, window=window)


def test_a_reward_that_rises_while_prompts_are_forgotten_is_hacked() -> None:
    told = hacked(figures(colour=UP, light=UP, prompt_following=DOWN))
    assert told is not None
    assert "colour rose by 0.200 while prompt_following fell by 0.200 (2.00 standard deviations)" in told
    assert hacked(figures(colour=UP, prompt_following=SAME)) is None


def test_without_prompts_forgotten_every_witness_must_have_fallen() -> None:
    assert hacked(figures(colour=UP, light=DOWN)) is not None
    assert hacked(figures(colour=UP, light=DOWN, size=UP)) is None
    assert hacked(figures(colour=UP, light=DOWN), trained=frozenset({"light"})) is None


def test_a_fall_that_chance_explains_or_a_reward_that_did_not_rise_is_no_hacking() -> None:
    assert hacked(figures(colour=UP, light=line(-0.2, error=0.3))) is None
    assert hacked(figures(colour=line(0.2, error=0.3), light=DOWN)) is None
    assert hacked(figures(colour=UP, light=line(-0.05))) is None


def test_hacking_must_last_for_the_window() -> None:
    bad, good = figures(colour=UP, light=DOWN), figures(colour=UP, light=UP)
    assert hacked(good, bad, window=2) is None
    assert hacked(bad, bad, window=2) is not None


def test_a_fall_of_scores_without_any_spread_is_told_in_words() -> None:
    told = hacked(figures(colour=UP, prompt_following=line(-0.5, spread=0.0)))
    assert told is not None
    assert "and all images score the same" in told


def test_what_the_reference_did_not_follow_is_said() -> None:
    held = {"ref_alpha": 0.0, "ref_drift_mse_gap": 0.2, "ref_frozen": 1.0}
    assert "frozen for good: ref_drift_mse_gap 0.2" in (guards.reference_held(held) or "")
    assert "not moved" in (guards.reference_held({**held, "ref_frozen": 0.0}) or "")
    assert guards.reference_held({**held, "ref_alpha": 1.0}) is None
    assert guards.reference_held({"ref_alpha": 0.0}) is None
