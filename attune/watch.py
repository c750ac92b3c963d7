"""A job's life on a terminal: one progress bar a phase, or plain lines where the output is a file or a pipe."""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from alignment_core.events import (
    ActionAnswered,
    CheckpointSaved,
    CompilingWeighed,
    Event,
    MicroBatchChosen,
    ModelLoaded,
    PhaseProgressed,
    PrecisionChosen,
    PrecisionMeasured,
    ProbeCompleted,
    ResultSelected,
    RunFailed,
    RunStarted,
    StartChecked,
    StepCompleted,
    Throughput,
    ThroughputMeasured,
    VaePrecisionChosen,
    WarningRaised,
)
from attune.client import Client
from attune.resources.jobs import Job
from attune.standing import Lookout
from attune.tables import memory_of

PLAIN_EVERY_SECONDS = 2.0
SHORTEST_BAR = 8
FIGURES = {"loss": "loss", "implicit_accuracy": "accuracy", "margin": "margin"}
LABELS = {"caching": "encoding"}  # the event's word says where the result goes, this one what takes the time
UNITS = {"caching": "images and prompts", "sampling": "images"}


class View(Protocol):
    def wait(self, text: str | None) -> None:
        """Say what the job waits for, until the next event; None when it waits no more."""
        ...

    def show(self, event: Event) -> None: ...

    def __enter__(self) -> "View": ...

    def __exit__(self, *_: object) -> None: ...


def follow(client: Client, job_id: str, console: Console) -> Job:
    """Show the job's events until it has ended; returns it as it is then."""
    with (
        BarView(console) if console.is_terminal else PlainView(console) as view,
        Lookout(client, job_id, view.wait) as lookout,
    ):
        for found in client.events(job_id):
            lookout.heard(partial(show_all, view, [found.event]))
    return client.wait_for_job(job_id)


def show_all(view: View, events: Iterable[Event | None]) -> None:
    for event in events:
        if event is not None:
            view.show(event)


class Counts:
    """What the phases have counted in this attempt. A phase that starts over, as for another split, is counted on."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._last: dict[str, PhaseProgressed] = {}

    def reset(self) -> None:
        self._before.clear()
        self._last.clear()

    def add(self, event: PhaseProgressed) -> tuple[int, int]:
        """Done and total of the event's phase, with everything that it counted before."""
        last = self._last.get(event.phase)
        if last is not None and (event.done < last.done or event.total != last.total):
            self._before[event.phase] = self._before.get(event.phase, 0) + last.total
        self._last[event.phase] = event
        before = self._before.get(event.phase, 0)
        return before + event.done, before + event.total


def figures_of(event: StepCompleted) -> list[str]:
    """`loss 0.641`, `accuracy 0.73`, `margin +0.118`: what of it the step has, the most important first."""
    return [
        f"{label} {value:+.3f}" if name == "margin" else f"{label} {value:.3f}"
        for name, label in FIGURES.items()
        if (value := event.metrics.get(name)) is not None
    ]


def eta_of(event: StepCompleted) -> str:
    """`eta 12 s`, `eta 5:20`, `eta 3:05:00`, or nothing when it is not known."""
    if event.eta_seconds is None:
        return ""
    seconds = round(event.eta_seconds)
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 2:
        return f"eta {seconds} s"
    return f"eta {hours}:{minutes % 60:02}:{seconds % 60:02}" if hours else f"eta {minutes}:{seconds % 60:02}"


def unit_of(event: PhaseProgressed) -> list[str]:
    """What the phase counts, and how much of it was there already."""
    return [
        *([UNITS[event.phase]] if event.phase in UNITS else []),
        *([f"{event.cached} cached"] if event.cached else []),
    ]


def pace_of(throughput: Throughput) -> str:
    """How fast, how well the card is used, how much memory it took."""
    said = [f"{throughput.examples_per_second:.1f} examples/s"]
    if throughput.tflops_per_second is not None:
        said.append(f"{throughput.tflops_per_second:.0f} TFLOP/s")
    if throughput.mfu is not None:
        said.append(f"{throughput.mfu:.0%} of the card")
    if throughput.peak_device_gib is not None:
        said.append(f"{memory_of(throughput.peak_device_gib)} on the device")
    said.append(f"{memory_of(throughput.peak_host_gib)} on the host")
    return f"pace: {', '.join(said)}; {throughput.waiting_share:.0%} waiting for batches, {throughput.saving_share:.0%} saving"


def fitting(texts: Sequence[str], width: int) -> str:
    """The first of the texts, as many as fit whole into the width, two spaces apart."""
    shown = ""
    for text in texts:
        longer = f"{shown}  {text}" if shown else text
        if len(longer) > width:
            return shown
        shown = longer
    return shown


def sentence_of(event: Event) -> str | None:
    """What of an event is worth a line of its own."""
    match event:
        case RunStarted():
            resumed = f", resumed from step {event.resumed_from_step}" if event.resumed_from_step else ""
            return f"started on {event.device} in {event.precision}: {event.examples_per_step} examples a step{resumed}"
        case ModelLoaded():
            return f"training {event.num_trainable_parameters:,} of {event.num_parameters:,} parameters"
        case PrecisionChosen():
            return f"precision: {event.precision}, the more exact on this model"
        case VaePrecisionChosen():
            error = event.latent_errors.get(event.precision)
            told = "" if error is None else f", which moves latents by {error:.2g} times what 8-bit pixels do"
            return f"images are encoded in {event.precision}{told}"
        case CompilingWeighed():
            told = f"{event.compiling_seconds:.0f} s of compiling would save about {event.saved_seconds:.0f}"
            return f"{told}: steps are {'' if event.is_compiled else 'not '}compiled"
        case StartChecked():
            told = ", ".join(f"{one.check} {one.seconds:.1f} s" for one in event.checks)
            return f"tried before the run in {event.seconds:.1f} s: {told}"
        case PrecisionMeasured() if event.logit_error is not None:
            return f"the first batch's logits are off by {event.logit_error:.2g} in {event.precision}"
        case MicroBatchChosen():
            passes = event.gradient_accumulation_steps
            return f"{event.batch_size} examples a forward pass fit the memory, {passes} passes a step"
        case ThroughputMeasured():
            return pace_of(event.throughput)
        case CheckpointSaved():
            return f"checkpoint of step {event.step} stored ({event.size_bytes / 1e6:.1f} MB)"
        case ProbeCompleted():
            gains = [
                f"{name.removesuffix('_gain')} {value:+.3f}"
                for name, value in event.metrics.items()
                if name.endswith("_gain")
            ]
            return "  ".join(
                [f"held-out gains after step {event.step}:", *gains, *(["the best so far"] if event.is_best else [])]
            )
        case ResultSelected():
            return f"result: {event.message}" if event.stopped_by or event.selected_by != "last_step" else None
        case ActionAnswered():
            return _answer_of(event)
        case WarningRaised():
            return f"warning: {event.message}"
        case RunFailed():
            return f"failed: {event.message}"
        case _:
            return None


def _answer_of(event: ActionAnswered) -> str:
    if event.refused is not None:
        return f"{event.action} asked for, and not possible: {event.refused}"
    gains = [
        f"{name.removesuffix('_gain')} {value:+.3f}" for name, value in event.metrics.items() if name.endswith("_gain")
    ]
    return "  ".join([f"{event.action} asked for: done after step {event.step}", *gains])


class BarView:
    """Progress bars for people. Count and ETA are always whole; where the terminal is narrow, figures are left out."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),  # what the others leave
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("{task.fields[eta]}"),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._counts = Counts()
        self._waiting: TaskID | None = None

    def __enter__(self) -> "BarView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_waiting()
        self._progress.stop()

    def wait(self, text: str | None) -> None:
        self._stop_waiting()
        if text is not None:
            self._waiting = self._progress.add_task(text, total=None, count="", eta="", figures="")

    def show(self, event: Event) -> None:
        self._stop_waiting()
        if (sentence := sentence_of(event)) is not None:
            self._progress.console.print(sentence, highlight=False, markup=False)
        match event:
            case RunStarted():
                self._counts.reset()
            case StepCompleted():
                self._update("training", event.step, event.total_steps, eta_of(event), figures_of(event))
            case PhaseProgressed():
                done, total = self._counts.add(event)
                self._update(LABELS.get(event.phase, event.phase), done, total, "", unit_of(event))
            case _:
                pass

    def _update(self, label: str, done: int, total: int, eta: str, figures: Sequence[str]) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, count="", eta="", figures="")
        count = f"{done}/{total}"
        widths = (max(10, len(label)), SHORTEST_BAR, self._widest("count", count), self._widest("eta", eta))
        room = self._progress.console.width - sum(widths) - len(widths)
        shown = fitting(figures, room)
        self._progress.update(self._tasks[label], completed=done, total=total, count=count, eta=eta, figures=shown)

    def _widest(self, field: str, text: str) -> int:
        """The width of a column that every bar shares."""
        return max([len(text), *(len(task.fields[field]) for task in self._progress.tasks)])

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._progress.remove_task(self._waiting)
            self._waiting = None


class PlainView:
    """Lines for logs: every other second at most, and always the last of a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Mapping[str, float] = {}
        self._counts = Counts()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def wait(self, text: str | None) -> None:
        if text is not None:
            self._print(text)

    def show(self, event: Event) -> None:
        if (sentence := sentence_of(event)) is not None:
            self._print(sentence)
        match event:
            case RunStarted():
                self._counts.reset()
            case StepCompleted():
                texts = [text for text in (eta_of(event), *figures_of(event)) if text]
                self._line("training", "step", event.step, event.total_steps, texts)
            case PhaseProgressed():
                label = LABELS.get(event.phase, event.phase)
                self._line(event.phase, label, *self._counts.add(event), unit_of(event))
            case _:
                pass

    def _line(self, phase: str, label: str, done: int, total: int, texts: Sequence[str]) -> None:
        now = time.monotonic()
        if done >= total or now - self._last.get(phase, 0.0) >= PLAIN_EVERY_SECONDS:
            self._last = {phase: now}
            self._print("  ".join([f"{label} {done}/{total}", *texts]))

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
