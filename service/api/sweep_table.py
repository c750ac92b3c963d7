"""The score table of a sweep: every trial against the model that it started from, corrected for how many there are."""

from collections.abc import Sequence
from typing import Literal

from alignment_core.reports import EvaluationReport, Interval, RewardComparison, holm
from service.api.mean_intervals import mean_interval
from service.api.schemas.sweeps import Score, ScoreTable, Source, SourceScore, Trial
from service.store.records.sweeps import SweepRecord, TrialRecord
from service.store.states import TERMINAL
from service.store.sweep_best import best_of, started_alike

OVER = (*TERMINAL, "deleted")


def table_of(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> ScoreTable:
    """`best` is named once every trial is over: the largest gain of the first reward among those that the corrected test calls better."""
    reports = {one.number: EvaluationReport.model_validate(one.report) for one in trials if one.report is not None}
    is_over = not sweep.is_open and all(one.state in OVER or one.state == "waiting" for one in trials)
    source = _source_of(list(reports.values()))
    scores = _corrected(reports)
    rows = [_row(one, scores.get(one.number, []), reports.get(one.number)) for one in trials]
    best = best_of(reports) if is_over else None
    return ScoreTable(
        is_over=is_over, source=source, is_comparable=source is not None or not reports, best=best, trials=rows
    )


def _source_of(reports: Sequence[EvaluationReport]) -> Source | None:
    """The starting model's scores; None where trials started from different models, or drew other prompts or seeds."""
    if not started_alike(reports):
        return None
    first = reports[0]
    scores = [
        SourceScore(name=line.name, mean=line.base_mean, mean_interval=_mean_interval(first, line, "base"))
        for line in first.rewards
    ]
    return Source(model=first.base.label if first.subject is None else first.subject.model, scores=scores)


def _mean_interval(
    report: EvaluationReport, line: RewardComparison, side: Literal["base", "policy"]
) -> Interval | None:
    scores = [
        (image.prompt, (image.base if side == "base" else image.policy).get(line.name)) for image in report.images
    ]
    found = [(prompt, score) for prompt, score in scores if score is not None]
    return mean_interval(found, line.gain_interval.confidence)


def _corrected(reports: dict[int, EvaluationReport]) -> dict[int, list[Score]]:
    """Of each reward apart, by its place: how many of them are looked at is the reader's choice."""
    found: dict[int, list[Score]] = {number: [] for number in reports}
    for place in range(max((len(report.rewards) for report in reports.values()), default=0)):
        lines = {number: report.rewards[place] for number, report in reports.items() if place < len(report.rewards)}
        corrected = holm([line.p_value for line in lines.values()])
        for number, p_value in zip(lines, corrected, strict=True):
            found[number].append(_score(reports[number], lines[number], p_value))
    return found


def _score(report: EvaluationReport, line: RewardComparison, holm_p_value: float | None) -> Score:
    return Score(
        name=line.name,
        mean=line.policy_mean,
        mean_interval=_mean_interval(report, line, "policy"),
        gain=line.gain,
        low=line.gain_interval.low,
        high=line.gain_interval.high,
        win_rate=line.win_rate,
        p_value=line.p_value,
        holm_p_value=holm_p_value,
    )


def _row(trial: TrialRecord, scores: list[Score], report: EvaluationReport | None) -> Trial:
    return Trial(
        number=trial.number,
        point=trial.point,
        job_id=trial.job_id,
        status=trial.state,
        error=trial.error,
        stopped_by=trial.stopped_by,
        verdict=None if report is None else report.verdict,
        scores=scores,
    )
