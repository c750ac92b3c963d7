"""Watch: the guards at work. It is told every step and every probe, says each violation once, and decides the end.

Its state is part of every checkpoint, so a resumed run decides as an undisturbed one, and a stopped run stays stopped. All
of it follows from numbers that are the same in every process, and so does every decision.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from alignment_core.errors import CheckpointError
from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import WarningRaised
from alignment_core.spec.guards import GuardsSpec, OnViolation
from alignment_core.training import guards

WATCHED = (
    *("loss", "implicit_accuracy", "clamped", "mean_shift", "kl", guards.BATCH_DRIFT, *guards.MEASURED_DRIFTS),
    *(f"{side}_{what}" for side in ("chosen", "rejected") for what in ("error", "gain", "gain_vs_init")),
)


@dataclass(frozen=True)
class Verdict:
    """What a guard says of the run as it is: a sentence, or None while all is well."""

    guard: str
    message: str | None
    on_violation: OnViolation | None


class Ending(BaseModel):
    """Why training ended before its last step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guard: str
    step: int
    message: str
    action: OnViolation


class Best(BaseModel):
    """The probe with the highest mean of the first evaluation reward, among those that no guard objects to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    value: float


class WatchState(BaseModel):
    """What a checkpoint keeps; numbers come back bit for bit. `result_step` is known once training has ended."""

    model_config = ConfigDict(extra="forbid")

    recent: list[dict[str, float]] = []
    probes: list[ProbeFigures] = []
    fired: list[str] = []
    unsaid: list[WarningRaised] = []
    ending: Ending | None = None
    best: Best | None = None
    result_step: int | None = None

    @property
    def probed_step(self) -> int:
        """The step of the last probe; 0 before the first."""
        return self.probes[-1].step if self.probes else 0

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2), encoding="utf-8")


def load_watch_state(path: Path) -> WatchState:
    """Raises `CheckpointError` when the file is missing or malformed."""
    try:
        return WatchState.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError("checkpoint_invalid", f"{path}: {error}") from error


class Watch:
    """`primary` is the reward that chooses the best checkpoint, `risen` the one whose rise may be hacking.

    `trained` are the rewards that the method optimises: none of them is a witness against another.
    """

    def __init__(self, spec: GuardsSpec, *, primary: str | None, risen: str | None, trained: frozenset[str]) -> None:
        self._spec = spec
        self._primary = primary
        self._risen = risen
        self._trained = trained
        self.state = WatchState()

    def observe_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in an optimiser step, before anyone hears of it: who leaves then has left after it."""
        self.state.recent.append({name: metrics[name] for name in WATCHED if name in metrics})
        del self.state.recent[: -self._num_recent_steps]
        if (held := guards.reference_held(metrics)) is not None:
            self._say("reference_frozen", step, held)
        for verdict in self._of_steps():
            self._judge(step, verdict)

    def observe_probe(self, probe: ProbeFigures) -> bool:
        """Take in a probe; whether it is the best so far. One that a guard objects to cannot be."""
        self.state.probes.append(probe)
        del self.state.probes[: -self._num_recent_probes]
        verdicts = list(self._of_probes())
        for verdict in verdicts:
            self._judge(probe.step, verdict)
        if self._primary is None or any(verdict.message for verdict in verdicts):
            return False
        value = probe.rewards[self._primary].mean
        if self.state.best is not None and value <= self.state.best.value:
            return False
        self.state.best = Best(step=probe.step, value=value)
        return True

    def observe_divergence(self, step: int, message: str) -> bool:
        """Take in that `step` cannot be made or used; whether the run ends well all the same, with what it has."""
        guard = self._spec.not_finite
        if guard is not None:
            self._judge(step, Verdict("not_finite", message, guard.on_violation))
        return self.state.ending is not None

    def take_unsaid(self) -> list[WarningRaised]:
        """The warnings that nobody has heard yet."""
        unsaid, self.state.unsaid = self.state.unsaid, []
        return unsaid

    def _judge(self, step: int, verdict: Verdict) -> None:
        """Say a violation the first time; the first that asks for more than a warning ends the training."""
        if verdict.message is None or verdict.guard in self.state.fired:
            return
        self._say(verdict.guard, step, verdict.message)
        action = verdict.on_violation or self._spec.on_violation
        if action != "warn" and self.state.ending is None:
            self.state.ending = Ending(guard=verdict.guard, step=step, message=verdict.message, action=action)

    def _say(self, code: str, step: int, message: str) -> None:
        if code not in self.state.fired:
            self.state.fired.append(code)
            self.state.unsaid.append(WarningRaised(code=code, message=message, step=step))

    def _of_steps(self) -> Iterator[Verdict]:
        recent = self.state.recent
        if (guard := self._spec.margin_saturation) is not None:
            message = guards.margin_saturation(
                recent,
                max_loss=guard.max_loss,
                min_accuracy=guard.min_accuracy,
                max_clamped=guard.max_clamped,
                window=guard.window,
            )
            yield Verdict("margin_saturation", message, guard.on_violation)
        if (guard := self._spec.errors_rising) is not None:
            message = guards.errors_rising(recent, max_ratio=guard.max_ratio, window=guard.window)
            yield Verdict("errors_rising", message, guard.on_violation)
        if (guard := self._spec.reference_drift) is not None:
            message = guards.reference_drift(
                recent, max_drift=guard.max_drift, max_mean_shift=guard.max_mean_shift, window=guard.window
            )
            yield Verdict("reference_drift", message, guard.on_violation)

    def _of_probes(self) -> Iterator[Verdict]:
        probes = self.state.probes
        if (guard := self._spec.diversity) is not None:
            message = guards.diversity(probes, min_ratio=guard.min_ratio, window=guard.window)
            yield Verdict("diversity_falling", message, guard.on_violation)
        if (guard := self._spec.reward_hacking) is not None and self._risen is not None:
            message = guards.reward_hacking(
                probes, risen=self._risen, trained=self._trained, max_drop=guard.max_drop, window=guard.window
            )
            yield Verdict("reward_hacking", message, guard.on_violation)

    @property
    def _num_recent_steps(self) -> int:
        found = (self._spec.margin_saturation, self._spec.errors_rising, self._spec.reference_drift)
        return max([1, *(guard.window for guard in found if guard is not None)])

    @property
    def _num_recent_probes(self) -> int:
        found = (self._spec.diversity, self._spec.reward_hacking)
        return max([1, *(guard.window for guard in found if guard is not None)])
