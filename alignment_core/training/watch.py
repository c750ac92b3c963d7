"""Watch: the guards at work. It is told every step and every probe, says each violation once, and may end the training.

What it has seen is part of every checkpoint, so a resumed run decides as an undisturbed one, and a stopped run stays stopped.
All of it follows from numbers that are the same in every process, and so does every decision.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import WarningRaised
from alignment_core.spec.guards import GuardsSpec, OnViolation
from alignment_core.training import guards
from alignment_core.training.run_state import Ending

WATCHED = (
    *("loss", "implicit_accuracy", "clamped", "mean_shift", "kl", guards.BATCH_DRIFT, *guards.MEASURED_DRIFTS),
    *(f"{side}_{what}" for side in ("chosen", "rejected") for what in ("error", "gain", "gain_vs_init")),
)


@dataclass(frozen=True)
class Finding:
    """What a guard says of the run as it is: a sentence, or None while all is well."""

    guard: str
    message: str | None
    on_violation: OnViolation | None


class Seen(BaseModel):
    """What the guards have seen of a run and said of it; numbers come back from a checkpoint bit for bit."""

    model_config = ConfigDict(extra="forbid")

    recent: list[dict[str, float]] = []
    probes: list[ProbeFigures] = []
    fired: list[str] = []
    unsaid: list[WarningRaised] = []


@dataclass(frozen=True)
class ProbeFinding:
    """What follows from a probe: `value` makes it a candidate for the best, None where a guard objects or nothing chooses."""

    value: float | None
    ending: Ending | None


class Watch:
    """`primary` is the reward that chooses the best checkpoint, `risen` the one whose rise may be hacking.

    `trained` are the rewards that the method optimises: none of them is a witness against another.
    """

    def __init__(self, spec: GuardsSpec, *, primary: str | None, risen: str | None, trained: frozenset[str]) -> None:
        self._spec = spec
        self._primary = primary
        self._risen = risen
        self._trained = trained
        self.seen = Seen()

    def observe_step(self, step: int, metrics: Mapping[str, float]) -> Ending | None:
        """Take in an optimiser step, before anyone hears of it: who leaves then has left after it. What ends the run, if anything."""
        self.seen.recent.append({name: metrics[name] for name in WATCHED if name in metrics})
        del self.seen.recent[: -self._num_recent_steps]
        if (held := guards.reference_held(metrics)) is not None:
            self._say("reference_frozen", step, held)
        return self._judge(step, self._of_steps())

    def observe_probe(self, probe: ProbeFigures) -> ProbeFinding:
        """Take in a probe. One that a guard objects to cannot be the best."""
        self.seen.probes.append(probe)
        del self.seen.probes[: -self._num_recent_probes]
        findings = list(self._of_probes())
        ending = self._judge(probe.step, findings)
        if self._primary is None or any(finding.message for finding in findings):
            return ProbeFinding(None, ending)
        return ProbeFinding(probe.rewards[self._primary].mean, ending)

    def observe_divergence(self, step: int, message: str) -> Ending | None:
        """Take in that `step` cannot be made or used; why the run ends well all the same, with what it has, if it does."""
        guard = self._spec.not_finite
        return None if guard is None else self._judge(step, [Finding("not_finite", message, guard.on_violation)])

    def take_unsaid(self) -> list[WarningRaised]:
        """The warnings that nobody has heard yet."""
        unsaid, self.seen.unsaid = self.seen.unsaid, []
        return unsaid

    def _judge(self, step: int, findings: Iterable[Finding]) -> Ending | None:
        """Say each violation the first time; the first that asks for more than a warning ends the training."""
        endings = []
        for finding in findings:
            if finding.message is None or finding.guard in self.seen.fired:
                continue
            self._say(finding.guard, step, finding.message)
            action = finding.on_violation or self._spec.on_violation
            if action != "warn":
                endings.append(Ending(guard=finding.guard, step=step, message=finding.message, action=action))
        return next(iter(endings), None)

    def _say(self, code: str, step: int, message: str) -> None:
        if code not in self.seen.fired:
            self.seen.fired.append(code)
            self.seen.unsaid.append(WarningRaised(code=code, message=message, step=step))

    def _of_steps(self) -> Iterator[Finding]:
        recent = self.seen.recent
        if (guard := self._spec.margin_saturation) is not None:
            message = guards.margin_saturation(
                recent,
                max_loss=guard.max_loss,
                min_accuracy=guard.min_accuracy,
                max_clamped=guard.max_clamped,
                window=guard.window,
            )
            yield Finding("margin_saturation", message, guard.on_violation)
        if (guard := self._spec.errors_rising) is not None:
            message = guards.errors_rising(recent, max_ratio=guard.max_ratio, window=guard.window)
            yield Finding("errors_rising", message, guard.on_violation)
        if (guard := self._spec.reference_drift) is not None:
            message = guards.reference_drift(
                recent, max_drift=guard.max_drift, max_mean_shift=guard.max_mean_shift, window=guard.window
            )
            yield Finding("reference_drift", message, guard.on_violation)

    def _of_probes(self) -> Iterator[Finding]:
        probes = self.seen.probes
        if (guard := self._spec.diversity) is not None:
            message = guards.diversity(probes, min_ratio=guard.min_ratio, window=guard.window)
            yield Finding("diversity_falling", message, guard.on_violation)
        if (guard := self._spec.reward_hacking) is not None and self._risen is not None:
            message = guards.reward_hacking(
                probes, risen=self._risen, trained=self._trained, max_drop=guard.max_drop, window=guard.window
            )
            yield Finding("reward_hacking", message, guard.on_violation)

    @property
    def _num_recent_steps(self) -> int:
        found = (self._spec.margin_saturation, self._spec.errors_rising, self._spec.reference_drift)
        return max([1, *(guard.window for guard in found if guard is not None)])

    @property
    def _num_recent_probes(self) -> int:
        found = (self._spec.diversity, self._spec.reward_hacking)
        return max([1, *(guard.window for guard in found if guard is not None)])
