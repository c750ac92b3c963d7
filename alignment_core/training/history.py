"""History: what a run has said so far, small enough to be part of every checkpoint.

So the curves of a report survive a dead worker: a resumed run goes on with the history of its checkpoint, and ends with
the one of an undisturbed run. A curve has at most 500 points whatever the length of the run: when they are full,
neighbours are averaged, and every later point stands for twice as many steps.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from alignment_core.errors import CheckpointError
from alignment_core.events import (
    Event,
    PrecisionMeasured,
    ProbeCompleted,
    StepCompleted,
    TimestepTable,
    ValidationCompleted,
    WarningRaised,
)
from alignment_core.reports import BinTable, Curve, RunWarning

MAX_POINTS = 500
MAX_WARNINGS = 100

Split = Literal["training", "validation", "held_out"]
T = TypeVar("T")


class Point(BaseModel):
    """Sums over neighbouring observations; a metric that some of them lack has a smaller count."""

    model_config = ConfigDict(extra="forbid")

    last_step: int
    num: int
    sums: dict[str, float]
    counts: dict[str, int]

    def add(self, other: "Point") -> None:
        """Take in what comes after."""
        self.last_step, self.num = other.last_step, self.num + other.num
        for name, total in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]


class Track(BaseModel):
    """The metrics of one split; a point stands for `stride` observations, the last perhaps for fewer."""

    model_config = ConfigDict(extra="forbid")

    stride: int = 1
    points: list[Point] = []

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Count one observation in, in the order of the steps."""
        observed = Point(last_step=step, num=1, sums=dict(metrics), counts=dict.fromkeys(metrics, 1))
        if self.points and self.points[-1].num < self.stride:
            self.points[-1].add(observed)
            return
        if len(self.points) == MAX_POINTS:
            self._halve()
        self.points.append(observed)

    def _halve(self) -> None:
        for kept, merged in zip(self.points[::2], self.points[1::2], strict=True):
            kept.add(merged)
        self.points, self.stride = self.points[::2], 2 * self.stride

    def curves(self, split: Split) -> list[Curve]:
        """A curve for every metric, sorted by name."""
        names = sorted({name for point in self.points for name in point.sums})
        return [self._curve(split, name) for name in names]

    def _curve(self, split: Split, name: str) -> Curve:
        having = [point for point in self.points if name in point.sums]
        return Curve(
            split=split,
            metric=name,
            steps=[point.last_step for point in having],
            values=[point.sums[name] / point.counts[name] for point in having],
        )


class History(BaseModel):
    """Curves, the last by-timestep table of each split, and warnings; times are left out."""

    model_config = ConfigDict(extra="forbid")

    tracks: dict[Split, Track] = {}
    tables: dict[Literal["training", "validation"], BinTable] = {}
    warnings: list[RunWarning] = []
    logit_error: float | None = None  # in half precision, on the first batch

    def observe(self, event: Event) -> None:
        """Keep what a report wants of `event`; most events are none of its business."""
        match event:
            case StepCompleted():
                self._add("training", event.step, event.metrics)
            case ValidationCompleted():
                self._add("validation", event.step, event.metrics)
            case ProbeCompleted():
                self._add("held_out", event.step, event.metrics)
            case TimestepTable():
                self.tables[event.split] = BinTable(
                    split=event.split, since_step=event.since_step, step=event.step, bins=event.bins
                )
            case PrecisionMeasured():
                self.logit_error = event.logit_error
            case WarningRaised():
                self._warn(RunWarning(code=event.code, message=event.message, step=event.step))
            case _:
                pass

    def _add(self, split: Split, step: int, metrics: dict[str, float]) -> None:
        self.tracks.setdefault(split, Track()).add(step, metrics)

    def _warn(self, warning: RunWarning) -> None:
        """Once each: what is found while loading is found again by every attempt."""
        if warning not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(warning)

    def curves(self) -> list[Curve]:
        """Every curve, split by split."""
        return [curve for split, track in sorted(self.tracks.items()) for curve in track.curves(split)]

    def save(self, path: Path) -> None:
        """Write it as JSON; numbers come back bit for bit."""
        path.write_text(self.model_dump_json(), encoding="utf-8")

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint's history; one that has none begins anew. Raises `CheckpointError` for a malformed one."""
        if not path.exists():
            return
        try:
            saved = History.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CheckpointError("checkpoint_invalid", f"{path}: {error}") from error
        self.tracks, self.tables, self.logit_error = saved.tracks, saved.tables, saved.logit_error
        current, self.warnings = self.warnings, saved.warnings
        for warning in current:
            self._warn(warning)


def recorded(events: Generator[Event, None, T], history: History) -> Generator[Event, None, T]:
    """`events`, each told to `history` before the caller hears of it; closing this closes them."""
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            history.observe(event)
            yield event
    finally:
        events.close()
