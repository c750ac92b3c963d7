"""How far a run has got and how it ends, as one frozen value: what may follow what, without a network or a file.

`training -> ended -> decided`: optimiser steps until the last one or until a guard ends them; then which checkpoint is the
result is decided, once. Everything but `total_steps` and the two steps is kept in each checkpoint's `watch.json`.
"""

from collections.abc import Collection
from typing import Literal, Self, assert_never, get_args

from pydantic import BaseModel, ConfigDict

from alignment_core.spec.guards import OnViolation

Stage = Literal["training", "ended", "decided"]
Verb = Literal["complete_step", "save", "probe", "end", "decide", "lose_best", "lose_result"]
SelectedBy = Literal["last_step", "held_out_reward", "rollback"]

STAGES: tuple[Stage, ...] = get_args(Stage)
ALLOWED: dict[Verb, tuple[Stage, ...]] = {
    "complete_step": ("training",),
    "save": STAGES,
    "probe": ("training", "ended"),  # the last step is probed as well
    "end": ("training", "ended"),  # by a guard; a later violation changes nothing
    "decide": ("ended",),
    "lose_best": STAGES,  # a checkpoint may be gone when a run is resumed
    "lose_result": ("decided",),
}


class InvalidTransition(AssertionError):  # noqa: N818 - a state of affairs, read as one
    """A mistake of ours: the run's state forbids what was done."""


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


class RunState(BaseModel):
    """`step` is the last completed optimiser step; `result_step` is known once the run is decided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total_steps: int
    step: int = 0
    saved_step: int = 0
    probed_step: int = 0
    best: Best | None = None
    ending: Ending | None = None
    result_step: int | None = None

    # --- what it says ---

    @property
    def stage(self) -> Stage:
        if self.result_step is not None:
            return "decided"
        return "ended" if self.ending is not None or self.step >= self.total_steps else "training"

    @property
    def is_saved(self) -> bool:
        """Whether the last completed step is in a checkpoint; the initial model needs none."""
        return self.saved_step >= self.step

    @property
    def goes_back(self) -> bool:
        """Whether a guard wants a checkpoint from before its violation."""
        return self.ending is not None and self.ending.action == "rollback"

    @property
    def last_step(self) -> int:
        """The step that training ends with, as far as is known."""
        return self.total_steps if self.ending is None else self.step

    @property
    def has_last_step(self) -> bool:
        """Whether there will be no step after this one."""
        return self.step >= self.last_step

    @property
    def kept_steps(self) -> set[int]:
        """Steps whose checkpoints stay, however old they are."""
        return {step for step in (self.best and self.best.step, self.result_step) if step is not None}

    def is_due(self, every: int | None) -> bool:
        """Whether what is done every so many steps, and after the last, is done now."""
        return every is not None and (self.step % every == 0 or self.has_last_step)

    def awaits_probe(self, every: int | None) -> bool:
        """Whether the step is to be probed and was not; who goes back does not ask what was reached."""
        is_open = self.stage != "decided" and not self.goes_back
        return is_open and self.probed_step < self.step and self.is_due(every)

    # --- what happens to it ---

    def complete_step(self, step: int) -> Self:
        """An optimiser step was taken."""
        self._may("complete_step", step == self.step + 1)
        return self._with(step=step)

    def save(self) -> Self:
        """The last completed step is in a checkpoint."""
        self._may("save")
        return self._with(saved_step=self.step)

    def probe(self, value: float | None) -> Self:
        """The step was probed; it is the best so far if its value is higher, and no candidate without one."""
        self._may("probe", self.probed_step < self.step)
        best = self.best
        if value is not None and (best is None or value > best.value):
            best = Best(step=self.step, value=value)
        return self._with(probed_step=self.step, best=best)

    def end(self, ending: Ending) -> Self:
        """A guard ends the training; the first that does so is the reason."""
        self._may("end", ending.action != "warn")
        return self if self.ending is not None else self._with(ending=ending)

    def decide(self, result_step: int) -> Self:
        """The checkpoint of `result_step` is the result."""
        self._may("decide", 0 <= result_step <= self.step)
        return self._with(result_step=result_step)

    def lose_best(self) -> Self:
        """The best checkpoint is not there any more: the next probe may be the best again."""
        self._may("lose_best", self.best is not None)
        return self._with(best=None)

    def lose_result(self) -> Self:
        """The result is not there any more, and another one is to be chosen."""
        self._may("lose_result")
        return self._with(result_step=None)

    def _may(self, verb: Verb, fits: bool = True) -> None:
        if self.stage not in ALLOWED[verb] or not fits:
            raise InvalidTransition(f"a run that is {self.stage} cannot {verb}: {self!r}")

    def _with(self, **changes: object) -> Self:
        return self.model_copy(update=changes)


# --- the result ----------------------------------------------------------------------------------------------------


def choose_result(state: RunState, saved_steps: Collection[int], preferred: Literal["best", "last"]) -> int:
    """The step of the result of a run that has ended, whose last step is yet to be saved.

    A rollback without a probe goes to the newest checkpoint from before the violation; where there is none, nowhere.
    """
    if state.best is not None and state.goes_back:
        return state.best.step
    if state.ending is not None and state.goes_back and state.step >= state.ending.step:
        return max((step for step in saved_steps if step < state.ending.step), default=state.step)
    match preferred:
        case "best":
            return state.step if state.best is None else state.best.step
        case "last":
            return state.step
        case _:
            assert_never(preferred)


def selected_by(state: RunState) -> SelectedBy:
    """Why the result is what it is."""
    if state.best is not None and state.best.step == state.result_step:
        return "held_out_reward"
    return "last_step" if state.result_step == state.step else "rollback"


def reason_of(state: RunState) -> str:
    """The same as a sentence, with what ended the training before its last step."""
    step = state.result_step
    match selected_by(state):
        case "held_out_reward":
            assert state.best is not None
            reason = f"the checkpoint of step {step} has the highest held-out reward, {state.best.value:.4g}"
        case "rollback":
            reason = f"the checkpoint of step {step} is the newest from before that"
        case "last_step":
            reason = f"the checkpoint of step {step} is the last one"
        case other:
            assert_never(other)
    if state.ending is None:
        return reason
    return f"{state.ending.guard} ended training at step {state.ending.step} ({state.ending.message}); {reason}"
