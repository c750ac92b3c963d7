"""What the curves of a run look worrying for, and what it means beside the report's own figures, in sentences."""

from alignment_core.evaluation import words
from alignment_core.reports import EvaluationReport, RewardComparison

LAST_SHARE = 10  # the last tenth of a curve, so that one step's noise says nothing


def warning_signs(report: EvaluationReport) -> list[str]:
    """One explanation for each sign; none for a run without."""
    return [*_of_gains(report), *_of_prompts(report)]


def _of_gains(report: EvaluationReport) -> list[str]:
    """`chosen_gain` below zero: winners are modelled worse than by the reference, whatever the margin does."""
    chosen, rejected = (_ending(report, name) for name in ("chosen_gain", "rejected_gain"))
    if chosen is None or rejected is None or chosen >= 0:
        return []
    ended = f"chosen_gain ended at {_short(chosen)} and rejected_gain at {_short(rejected)}"
    if rejected >= 0:
        return [
            f"{ended}: the model predicts chosen images worse than its reference does, and rejected ones better. It learns the "
            "wrong side; look whether chosen and rejected were swapped."
        ]
    return [
        f"{ended}, both below zero: the model predicts chosen and rejected images alike worse than its reference does, and tells "
        "them apart because the rejected ones get worse faster. Preference losses often do so, since they see only the "
        f"difference. {_outcome(report)}"
    ]


def _outcome(report: EvaluationReport) -> str:
    remedy = "Lower the learning rate, train for fewer steps or raise beta"
    if report.verdict == "worse" or _fell(report.prompt_following):
        return f"Here it cost: held-out figures fell. {remedy}."
    if report.verdict == "improved":
        kept = " and prompt-following did not fall" if report.prompt_following is not None else ""
        return f"It is no fault here: on held-out prompts the first reward rose{kept}. If it goes on for long, images come apart: {remedy.lower()}."
    return f"Whether it cost anything, the held-out figures do not tell. {remedy}."


def _of_prompts(report: EvaluationReport) -> list[str]:
    if report.verdict != "improved" or not _fell(report.prompt_following):
        return []
    return [
        "The reward rose and prompt-following fell: the model may have found what pleases the reward instead of better images. "
        "Look at the pictures, and stop earlier."
    ]


def _fell(line: RewardComparison | None) -> bool:
    return line is not None and line.gain_interval.high < 0


def _ending(report: EvaluationReport, metric: str) -> float | None:
    """The mean of the last tenth of a training curve."""
    values = next((one.values for one in report.curves if (one.split, one.metric) == ("training", metric)), [])
    last = values[-max(1, len(values) // LAST_SHARE) :]
    return sum(last) / len(last) if last else None


def _short(value: float) -> str:
    return f"{value:.2g}".replace("-", words.MINUS)
