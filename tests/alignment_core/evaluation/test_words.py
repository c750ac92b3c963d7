"""The report in sentences."""

import pytest

from alignment_core.evaluation import words
from alignment_core.reports import EvaluationReport, Interval
from tests.alignment_core.evaluation.pages import comparison, full_report

MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return full_report(comparison())


@pytest.mark.parametrize(
    ("value", "digits", "plain", "signed"),
    [
        (0.1234, 3, "0.123", "+0.123"),
        (-0.1234, 2, f"{MINUS}0.12", f"{MINUS}0.12"),
        (-0.0001, 2, "0.00", "+0.00"),
        (1234.5, 0, "1234", "+1234"),
    ],
)
def test_numbers_have_a_true_minus_and_no_negative_zero(value: float, digits: int, plain: str, signed: str) -> None:
    assert words.plain(value, digits) == plain
    assert words.signed(value, digits) == signed


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "\N{EN DASH}"), (0.0321, "0.032"), (3.6e-12, "4e-12"), (0.0004, "0.0004"), (1e-40, f"<{NBSP}1e-15")],
)
def test_p_values_are_short(p: float | None, text: str) -> None:
    assert words.p_value(p) == text


def test_the_verdict_says_what_rose_on_what_and_how_sure_that_is(report: EvaluationReport) -> None:
    first, *others = words.verdict(report)
    line = report.rewards[0]
    assert first.startswith("On 24 held-out prompts \N{MULTIPLICATION SIGN} 2 seeds, mean colour went from ")
    assert f"a gain of {words.signed(line.gain, 3)}" in first
    assert f"95{NBSP}% interval {words.interval_of(line)}, p{NBSP}<{NBSP}1e-15" in first
    assert f"{words.percent(line.win_rate)} of the pairs" in first
    assert others[0].startswith("Not trained on: glow fell by 0.01")
    assert "Prompt-following is the same in every pair, 1.000." in others
    assert others[-1].startswith("Images of one prompt differ ")


def test_a_change_within_its_interval_is_not_called_a_change(report: EvaluationReport) -> None:
    unclear = report.rewards[1].model_copy(
        update={"gain": 0.01, "gain_interval": Interval(low=-0.02, high=0.04, confidence=0.95)}
    )
    changed = report.model_copy(update={"rewards": [report.rewards[0], unclear]})
    assert "Not trained on: glow without clear change (+0.010)." in words.verdict(changed)


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        ("improved", "Better: colour rose"),
        ("worse", "Worse: colour fell"),
        ("not_improved", "No clear change in colour"),
        ("unknown", "One prompt proves nothing"),
    ],
)
def test_the_headline_is_the_verdict(report: EvaluationReport, verdict: str, headline: str) -> None:
    assert words.headline(report.model_copy(update={"verdict": verdict})) == headline


@pytest.mark.parametrize(
    ("selected_by", "stopped_by", "told"),
    [
        ("last_step", None, []),
        ("held_out_reward", None, ["Of 300 steps, step 200 is the result: its held-out reward was the highest."]),
        (
            "rollback",
            "drift",
            ["The guard drift ended training.", "Of 300 steps, step 200 is the result: a guard rolled back to it."],
        ),
    ],
)
def test_a_result_that_is_not_the_last_step_says_why(
    report: EvaluationReport, selected_by: str, stopped_by: str | None, told: list[str]
) -> None:
    chosen = report.model_copy(update={"selected_by": selected_by, "stopped_by": stopped_by, "last_step": 300})
    assert words.verdict(chosen)[len(words.verdict(report)) :] == told


def test_what_was_not_measured_is_not_claimed(report: EvaluationReport) -> None:
    bare = report.model_copy(update={"rewards": [], "prompt_following": None, "diversity": None})
    assert words.headline(bare) == "Not scored"
    assert words.verdict(bare) == [
        "Both models drew 24 held-out prompts \N{MULTIPLICATION SIGN} 2 seeds, and no reward was asked to score them."
    ]
    unjudged = report.model_copy(update={"prompt_following": None})
    assert any("No judge of prompt-following was asked" in sentence for sentence in words.verdict(unjudged))
