"""The checkpoint that is the result of a run: chosen once training has ended, loaded, and told."""

from collections.abc import Iterator
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.events import ResultSelected, WarningRaised
from alignment_core.training.run import Run
from alignment_core.training.run_state import choose_result, reason_of, selected_by


def decide_result(run: Run, folder: Path) -> None:
    """Choose the result among what is saved in `folder` and the last step, which is yet to be saved."""
    saved = [checkpoints.read_manifest(one).step for one in checkpoints.complete(folder)]
    preferred = run.spec.checkpoints.result
    assert preferred is not None, "the spec is resolved"
    run.state = run.state.decide(choose_result(run.state, saved, preferred))


def forget_missing(run: Run, folder: Path) -> Iterator[WarningRaised]:
    """A best checkpoint that is not there any more cannot be the result: the next probe may be the best again."""
    best, result_step = run.state.best, run.state.result_step
    if best is not None and not checkpoints.is_complete(folder, best.step):
        yield WarningRaised(
            code="best_checkpoint_missing",
            message=f"the best checkpoint, of step {best.step}, is not in the work folder any more",
        )
        run.state = run.state.lose_best()
    if result_step is not None and not checkpoints.is_complete(folder, result_step):
        run.state = run.state.lose_result()


def load_result(run: Run, workdir: Path) -> ResultSelected:
    """Give the policy the weights of the result; raises `CheckpointError` when its checkpoint was altered."""
    state = run.state
    assert state.result_step is not None, "the result is chosen before it is loaded"
    folder = checkpoints.folder_of(workdir / "checkpoints", state.result_step)
    if state.result_step != state.step:
        checkpoints.verify(folder)
        run.family.load_policy(run.actors, folder)
    return ResultSelected(
        step=state.result_step,
        path=folder.relative_to(workdir).as_posix(),
        selected_by=selected_by(state),
        last_step=state.step,
        stopped_by=None if state.ending is None else state.ending.guard,
        message=reason_of(state),
    )
