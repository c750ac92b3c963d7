"""What a run's events say to a tracker, as plain data: pure functions from an event to what is told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ProbeCompleted,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
    ThroughputMeasured,
    ValidationCompleted,
)
from alignment_core.reports import EvaluationReport
from alignment_core.spec.places import RunLabel

MOST_ITEMS = 50  # of a list in the configuration: a spec may hold a hundred thousand prompts

Ending = Literal["completed", "stopped", "failed"]


@dataclass(frozen=True)
class Began:
    """An attempt at a run. `step` is where it goes on from: None where it begins anew."""

    run_id: str
    name: str
    config: dict[str, Any]
    tags: Mapping[str, str]
    step: int | None


@dataclass(frozen=True)
class Scalars:
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Picture:
    step: int
    path: Path
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Gains:
    """The final report: a row for each reward, and the same as figures."""

    step: int
    verdict: str
    rows: tuple[tuple[str | float, ...], ...]
    values: Mapping[str, float]

    COLUMNS = ("reward", "before", "after", "gain", "low", "high", "win rate")


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written: what was told up to here is of use to whoever goes on from it."""

    step: int


Told = Began | Scalars | Picture | Gains | Saved


@dataclass(frozen=True)
class Subject:
    """Whose run it is."""

    workdir: Path
    label: RunLabel = field(default_factory=RunLabel)


def told_of(event: Event, subject: Subject) -> Iterator[Told]:
    """What a tracker hears of an event; nothing of most."""
    match event:
        case RunStarted():
            yield _began(event, subject)
        case StepCompleted():
            yield Scalars(event.step, {**_named("train", event.metrics), "train/step_seconds": event.step_seconds})
        case ValidationCompleted():
            yield Scalars(event.step, _named("validation", event.metrics))
        case ProbeCompleted():
            yield Scalars(event.step, _named("held_out", event.metrics))
        case ThroughputMeasured():
            measured = event.throughput.model_dump(exclude={"num_steps"}, exclude_none=True)
            yield Scalars(event.step, _named("throughput", measured))
        case SamplesDrawn():
            yield Picture(event.step, subject.workdir / event.path, tuple(event.prompts))
        case EvaluationCompleted():
            yield _gains(event.step, EvaluationReport.model_validate(event.report))
        case CheckpointSaved():
            yield Saved(event.step)
        case _:
            pass


def _began(event: RunStarted, subject: Subject) -> Began:
    label = subject.label
    run_id = label.job_id or f"{subject.workdir.resolve().name}-{event.spec_sha256[:12]}"
    tags = {**label.metadata, "spec_sha256": event.spec_sha256, "device": event.device, **_versions(event)}
    return Began(run_id, label.job_name or run_id, shortened(event.spec), tags, event.resumed_from_step)


def _versions(event: RunStarted) -> dict[str, str]:
    return {f"version.{name}": version for name, version in event.versions.items()}


def _named(group: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in metrics.items()}


def _gains(step: int, report: EvaluationReport) -> Gains:
    lines = [*report.rewards, *([report.prompt_following] if report.prompt_following else [])]
    rows = [
        (
            one.name,
            one.base_mean,
            one.policy_mean,
            one.gain,
            one.gain_interval.low,
            one.gain_interval.high,
            one.win_rate,
        )
        for one in lines
    ]
    figures = {
        f"report/{one.name}/{name}": value
        for one in lines
        for name, value in (
            ("gain", one.gain),
            ("gain_low", one.gain_interval.low),
            ("gain_high", one.gain_interval.high),
            ("win_rate", one.win_rate),
        )
    }
    return Gains(step, report.verdict, tuple(rows), figures)


def shortened(value: Any) -> Any:
    """A spec with its long lists cut, and how many items they had said in place of the rest."""
    match value:
        case dict():
            return {name: shortened(part) for name, part in value.items()}
        case list() | tuple():
            rest = [f"and {len(value) - MOST_ITEMS} more"] if len(value) > MOST_ITEMS else []
            return [*map(shortened, value[:MOST_ITEMS]), *rest]
        case _:
            return value


def markdown(gains: Gains) -> str:
    """The table of gains for people."""
    lines = [gains.COLUMNS, ("---",) * len(gains.COLUMNS), *(map(_cell, row) for row in gains.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{gains.verdict.replace('_', ' ')}**\n\n{table}"


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
