"""A job's life on a terminal: one progress bar a phase, or plain lines where the output is a file or a pipe."""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from alignment_core.events import (
    CheckpointSaved,
    Event,
    ModelLoaded,
    PhaseProgressed,
    RunFailed,
    RunStarted,
    StepCompleted,
    WarningRaised,
)
from attune.client import Client
from attune.resources import Job

PLAIN_EVERY_SECONDS = 2.0
FIGURES = {"loss": "loss", "implicit_accuracy": "accuracy", "margin": "margin"}


class View(Protocol):
    def show(self, event: Event) -> None: ...

    def __enter__(self) -> "View": ...

    def __exit__(self, *_: object) -> None: ...


def follow(client: Client, job_id: str, console: Console) -> Job:
    """Show the job's events until it has ended; returns it as it is then."""
    with BarView(console) if console.is_terminal else PlainView(console) as view:
        show_all(view, (found.event for found in client.events(job_id)))
    return client.wait_for_job(job_id)


def show_all(view: View, events: Iterable[Event | None]) -> None:
    for event in events:
        if event is not None:
            view.show(event)


def figures_of(event: StepCompleted) -> str:
    """`eta 12 s  loss 0.641  accuracy 0.73  margin +0.118`, what of it the step has."""
    texts = [] if event.eta_seconds is None else [f"eta {event.eta_seconds:.0f} s"]
    for name, label in FIGURES.items():
        if (value := event.metrics.get(name)) is not None:
            texts.append(f"{label} {value:+.3f}" if name == "margin" else f"{label} {value:.3f}")
    return "  ".join(texts)


def sentence_of(event: Event) -> str | None:
    """What of an event is worth a line of its own."""
    match event:
        case RunStarted():
            resumed = f", resumed from step {event.resumed_from_step}" if event.resumed_from_step else ""
            return f"started on {event.device} in {event.precision}: {event.pairs_per_step} pairs a step{resumed}"
        case ModelLoaded():
            return f"training {event.num_trainable_parameters:,} of {event.num_parameters:,} parameters"
        case CheckpointSaved():
            return f"checkpoint of step {event.step} stored ({event.size_bytes / 1e6:.1f} MB)"
        case WarningRaised():
            return f"warning: {event.message}"
        case RunFailed():
            return f"failed: {event.message}"
        case _:
            return None


class BarView:
    """Progress bars for people."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "BarView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        if (sentence := sentence_of(event)) is not None:
            self._progress.console.print(sentence, highlight=False, markup=False)
        match event:
            case StepCompleted():
                self._update("training", event.step, event.total_steps, figures_of(event))
            case PhaseProgressed():
                self._update(event.phase, event.done, event.total, f"{event.cached} cached" if event.cached else "")
            case _:
                pass

    def _update(self, name: str, done: int, total: int, figures: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, figures="")
        self._progress.update(self._tasks[name], completed=done, total=total, figures=figures)


class PlainView:
    """Lines for logs: every other second at most, and always the last of a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Mapping[str, float] = {}

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, event: Event) -> None:
        if (sentence := sentence_of(event)) is not None:
            self._print(sentence)
        match event:
            case StepCompleted():
                self._line("training", "step", event.step, event.total_steps, figures_of(event))
            case PhaseProgressed():
                self._line(event.phase, event.phase, event.done, event.total, "")
            case _:
                pass

    def _line(self, phase: str, label: str, done: int, total: int, figures: str) -> None:
        now = time.monotonic()
        if done >= total or now - self._last.get(phase, 0.0) >= PLAIN_EVERY_SECONDS:
            self._last = {phase: now}
            self._print(f"{label} {done}/{total}  {figures}".rstrip())

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
