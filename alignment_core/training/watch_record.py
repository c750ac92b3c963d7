"""What a checkpoint keeps of the guards and of the run's end: `watch.json`, of which every run that was saved has one."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from alignment_core.errors import CheckpointError
from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import WarningRaised
from alignment_core.training.run_state import Best, Ending, RunState
from alignment_core.training.watch import Seen


class WatchRecord(BaseModel):
    """One flat object, as it has been from the first release on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recent: list[dict[str, float]] = []
    probes: list[ProbeFigures] = []
    fired: list[str] = []
    unsaid: list[WarningRaised] = []
    ending: Ending | None = None
    best: Best | None = None
    result_step: int | None = None

    @property
    def seen(self) -> Seen:
        return Seen(recent=self.recent, probes=self.probes, fired=self.fired, unsaid=self.unsaid)

    def state_at(self, step: int, total_steps: int) -> RunState:
        """The state of a run that was saved after `step`."""
        return RunState(
            total_steps=total_steps,
            step=step,
            saved_step=step,
            probed_step=self.probes[-1].step if self.probes else 0,
            best=self.best,
            ending=self.ending,
            result_step=self.result_step,
        )


def save_watch(path: Path, seen: Seen, state: RunState) -> None:
    """Write it as JSON; numbers come back bit for bit."""
    record = WatchRecord(**dict(seen), ending=state.ending, best=state.best, result_step=state.result_step)
    path.write_text(record.model_dump_json(indent=2), encoding="utf-8")


def load_watch(path: Path) -> WatchRecord:
    """Raises `CheckpointError` when the file is missing or malformed."""
    try:
        return WatchRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError("checkpoint_invalid", f"{path}: {error}") from error
