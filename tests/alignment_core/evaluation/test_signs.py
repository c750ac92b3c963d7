"""Warning signs of a run, explained beside what its report found."""

from typing import Any

import pytest

from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.signs import warning_signs
from alignment_core.reports import Curve, Diversity, EvaluationReport, Interval
from tests.alignment_core.evaluation.pages import comparison, full_report


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    """One reward that rose, and nothing that it cost."""
    found = full_report(comparison())
    return found.model_copy(update={"rewards": found.rewards[:1], "diversity": Diversity(base=0.1, policy=0.095)})


def with_gains(report: EvaluationReport, chosen: float, rejected: float, **changes: Any) -> EvaluationReport:
    """Gains that end there, after a beginning that says the opposite."""
    curves = [
        Curve(split="training", metric=name, steps=list(range(1, 101)), values=[-value] * 80 + [value] * 20)
        for name, value in (("chosen_gain", chosen), ("rejected_gain", rejected))
    ]
    return report.model_copy(update={"curves": curves, **changes})


def test_a_run_without_signs_is_not_explained(report: EvaluationReport) -> None:
    assert warning_signs(report) == []
    assert warning_signs(with_gains(report, 1e-3, -1e-3)) == []


def test_both_gains_below_zero_are_no_fault_where_the_images_are_better(report: EvaluationReport) -> None:
    (told,) = warning_signs(with_gains(report, -2.9e-4, -8.2e-4, verdict="improved"))
    assert told.startswith(
        "chosen_gain ended at \N{MINUS SIGN}0.00029 and rejected_gain at \N{MINUS SIGN}0.00082, both below"
    )
    assert "no fault here: on held-out prompts the first reward rose and prompt-following did not fall" in told


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("worse", "Here it cost"), ("not_improved", "do not tell"), ("unknown", "do not tell")]
)
def test_both_gains_below_zero_are_told_with_what_they_cost(
    verdict: str, outcome: str, report: EvaluationReport
) -> None:
    (told,) = warning_signs(with_gains(report, -1e-3, -2e-3, verdict=verdict))
    assert outcome in told
    assert "Lower the learning rate" in told


def test_learning_the_wrong_side_is_told(report: EvaluationReport) -> None:
    (told,) = warning_signs(with_gains(report, -1e-3, 2e-3))
    assert "wrong side" in told


def test_a_reward_that_rose_at_the_cost_of_the_prompt_is_told(report: EvaluationReport) -> None:
    assert report.prompt_following is not None
    fell = report.prompt_following.model_copy(
        update={"gain": -0.1, "gain_interval": Interval(low=-0.12, high=-0.08, confidence=0.95)}
    )
    changed = report.model_copy(update={"verdict": "improved", "prompt_following": fell})
    (told,) = warning_signs(changed)
    assert "prompt-following fell" in told
    assert "Here it cost" in warning_signs(with_gains(changed, -1e-3, -2e-3))[0]


def test_the_page_explains_what_its_curves_show(report: EvaluationReport) -> None:
    page = render_page(with_gains(report, -1e-3, -2e-3), comparison())
    assert "both below zero" in page
    assert "both below zero" not in render_page(report, comparison())


def test_pairs_learned_by_heart_are_told_from_pairs_that_are_used_up(report: EvaluationReport) -> None:
    training = Curve(split="training", metric="implicit_accuracy", steps=[1, 2], values=[0.5, 0.99])
    (told,) = warning_signs(report.model_copy(update={"curves": [training]}))
    assert "little is left to learn" in told
    validation = Curve(split="validation", metric="implicit_accuracy", steps=[2], values=[0.6])
    (told,) = warning_signs(report.model_copy(update={"curves": [training, validation]}))
    assert "by heart" in told


def test_another_reward_that_fell_and_images_that_are_more_alike_are_told(report: EvaluationReport) -> None:
    fell = report.rewards[0].model_copy(
        update={"name": "glow", "trained": False, "gain_interval": Interval(low=-0.2, high=-0.05, confidence=0.95)}
    )
    (told,) = warning_signs(report.model_copy(update={"rewards": [report.rewards[0], fell]}))
    assert told.startswith("glow fell while colour rose")
    (told,) = warning_signs(report.model_copy(update={"diversity": Diversity(base=0.1, policy=0.05)}))
    assert "50\N{NO-BREAK SPACE}% more alike" in told
