"""Which checkpoint is the result of a run: the best by held-out reward, the last, or the one a guard goes back to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alignment_core import checkpoints
from alignment_core.events import ResultSelected, WarningRaised
from alignment_core.families.sd_weights import load_policy
from alignment_core.training.run import Run


def choose_result(run: Run, folder: Path, last_step: int) -> int:
    """The step of the result, when training has ended with `last_step`, which is yet to be saved.

    A rollback without a probe goes to the newest checkpoint from before the violation; where there is none, nowhere.
    """
    state, ending = run.watch.state, run.watch.state.ending
    goes_back = ending is not None and ending.action == "rollback"
    if state.best is not None and (goes_back or run.spec.checkpoints.result == "best"):
        return state.best.step
    if ending is not None and goes_back and last_step >= ending.step:
        saved = [checkpoints.read_manifest(one).step for one in checkpoints.complete(folder)]
        return max((step for step in saved if step < ending.step), default=last_step)
    return last_step


def forget_missing(run: Run, folder: Path) -> Iterator[WarningRaised]:
    """A best checkpoint that is not there any more cannot be the result: the next probe may be the best again."""
    state = run.watch.state
    if state.best is not None and not checkpoints.is_complete(folder, state.best.step):
        yield WarningRaised(
            code="best_checkpoint_missing",
            message=f"the best checkpoint, of step {state.best.step}, is not in the work folder any more",
        )
        state.best = None
    if state.result_step is not None and not checkpoints.is_complete(folder, state.result_step):
        state.result_step = None


def load_result(run: Run, workdir: Path, last_step: int) -> ResultSelected:
    """Give the policy the weights of the result; raises `CheckpointError` when its checkpoint was altered."""
    step = run.watch.state.result_step
    assert step is not None, "the result is chosen before it is loaded"
    folder = checkpoints.folder_of(workdir / "checkpoints", step)
    if step != last_step:
        checkpoints.verify(folder)
        load_policy(run.actors, folder)
    ending = run.watch.state.ending
    return ResultSelected(
        step=step,
        path=folder.relative_to(workdir).as_posix(),
        selected_by=_selected_by(run, step, last_step),
        last_step=last_step,
        stopped_by=None if ending is None else ending.guard,
        message=_sentence(run, step, last_step),
    )


def _selected_by(run: Run, step: int, last_step: int) -> Literal["last_step", "held_out_reward", "rollback"]:
    state = run.watch.state
    if state.best is not None and state.best.step == step:
        return "held_out_reward"
    return "last_step" if step == last_step else "rollback"


def _sentence(run: Run, step: int, last_step: int) -> str:
    state = run.watch.state
    match _selected_by(run, step, last_step):
        case "held_out_reward":
            assert state.best is not None
            reason = f"the checkpoint of step {step} has the highest held-out reward, {state.best.value:.4g}"
        case "rollback":
            reason = f"the checkpoint of step {step} is the newest from before that"
        case "last_step":
            reason = f"the checkpoint of step {step} is the last one"
    if state.ending is None:
        return reason
    return f"{state.ending.guard} ended training at step {state.ending.step} ({state.ending.message}); {reason}"
