"""What the figures of a run look worrying for, and what it means beside the others, in sentences."""

from alignment_core.evaluation import words
from alignment_core.reports import EvaluationReport, RewardComparison

USED_UP = 0.98  # of the training pairs
LEARNED_BY_HEART = 0.1  # more of the training pairs than of the validation pairs
DIVERSITY_LOST = 0.2
LAST_SHARE = 10  # the last tenth of a curve, so that one step's noise says nothing


def warning_signs(report: EvaluationReport) -> list[str]:
    """One explanation for each sign; none for a run without."""
    return [
        *_of_gains(report),
        *_of_accuracy(report),
        *_of_prompts(report),
        *_of_other_rewards(report),
        *_of_diversity(report),
    ]


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


def _of_accuracy(report: EvaluationReport) -> list[str]:
    trained, held_out = (_ending(report, "implicit_accuracy", split) for split in ("training", "validation"))
    if trained is None or trained < USED_UP:
        return []
    told_apart = f"{words.percent(trained)} of the training pairs are told apart at the end"
    if held_out is not None and trained - held_out > LEARNED_BY_HEART:
        return [
            f"{told_apart}, and {words.percent(held_out)} of the validation pairs: the model knows these pairs by heart."
        ]
    return [f"{told_apart}: little is left to learn from them, and more steps move the model without teaching it."]


def _of_other_rewards(report: EvaluationReport) -> list[str]:
    fell = [line.name for line in report.rewards[1:] if not line.trained and _fell(line)]
    if report.verdict != "improved" or not fell:
        return []
    return [
        f"{' and '.join(fell)} fell while {report.rewards[0].name} rose. That may be the preference itself, which costs another "
        "thing, or a reward that is being exploited: the pictures tell which."
    ]


def _of_diversity(report: EvaluationReport) -> list[str]:
    found = report.diversity
    if found is None or found.base == 0 or found.policy >= (1 - DIVERSITY_LOST) * found.base:
        return []
    lost = words.percent(1 - found.policy / found.base)
    return [
        f"Images of one prompt are {lost} more alike than before: the model may be collapsing to what it is paid for."
    ]


def _fell(line: RewardComparison | None) -> bool:
    return line is not None and line.gain_interval.high < 0


def _ending(report: EvaluationReport, metric: str, split: str = "training") -> float | None:
    """The mean of the last tenth of a curve."""
    values = next((one.values for one in report.curves if (one.split, one.metric) == (split, metric)), [])
    last = values[-max(1, len(values) // LAST_SHARE) :]
    return sum(last) / len(last) if last else None


def _short(value: float) -> str:
    return f"{value:.2g}".replace("-", words.MINUS)
