"""Which trial of a sweep is called best: one rule for its score table and for its webhooks."""

from collections.abc import Mapping, Sequence

from alignment_core.reports import EvaluationReport, holm


def started_alike(reports: Sequence[EvaluationReport]) -> bool:
    """Whether all trials started from the same model, and drew the same prompts and seeds: their bases then score the same."""
    means = [{line.name: line.base_mean for line in report.rewards} for report in reports]
    return bool(means) and all(one == means[0] for one in means)


def best_of(reports: Mapping[int, EvaluationReport]) -> int | None:
    """By the trial's number: the largest gain of the first reward among those that Holm's test over all of them calls better."""
    told = {number: report for number, report in reports.items() if report.rewards}
    if not started_alike(list(reports.values())):
        return None
    corrected = holm([report.rewards[0].p_value for report in told.values()])
    better = [
        number
        for (number, report), p_value in zip(told.items(), corrected, strict=True)
        if report.verdict == "improved"
        and p_value is not None
        and p_value < 1 - report.rewards[0].gain_interval.confidence
    ]
    return max(better, key=lambda number: told[number].rewards[0].gain) if better else None
