"""Warning signs of a run, explained beside what its report found."""

from typing import Any

import pytest

from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.signs import warning_signs
from alignment_core.reports import Curve, EvaluationReport, Interval
from tests.alignment_core.evaluation.pages import comparison, full_report


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return full_report(comparison())


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
