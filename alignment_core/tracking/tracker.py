"""Tracker: what the client library of another tool is made to do here. It may be slow and may fail; nobody waits for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, assert_never

from alignment_core.spec.trackers import TrackerName
from alignment_core.tracking.points import Ending, Told


class Tracker(Protocol):
    """One run of one tool. It is called by one thread alone; the first that it is told is `Began`."""

    def tell(self, told: Sequence[Told]) -> list[Path]:
        """Write this down, in order; returns the files that are complete by now and are the run's to keep."""
        ...

    def end(self, ending: Ending) -> list[Path]:
        """Write what is left; returns files as `tell` does."""
        ...


def open_tracker(name: TrackerName, workdir: Path) -> Tracker:
    """Import the client, which an extra of the same name installs; its `ImportError` is the caller's to tell."""
    match name:
        case "tensorboard":
            from alignment_core.tracking.tensorboard_files import TensorBoardFiles

            return TensorBoardFiles(workdir / "tensorboard")
        case "wandb":
            from alignment_core.tracking.weights_and_biases import WeightsAndBiases

            return WeightsAndBiases(workdir)
        case "mlflow":
            from alignment_core.tracking.mlflow_run import MLflowRun

            return MLflowRun()
        case _:
            assert_never(name)
