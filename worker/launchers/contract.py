"""What starts the processes of a training: one gang, rank 0's events, and an end to all of it.

Three of them keep this contract: `local` (torchrun under a guard, on this host), `slurm` and `kubeflow`. The row, the lease and
the fence of a job know nothing of it: whatever runs the gang, it ends when the lease does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from alignment_core.events import Event
from worker.process import ProcessLog

EXIT_STOPPED = 75  # of `python -m alignment_core run`, and of a gang that was taken away: it may go on elsewhere
EXIT_LOST = 1  # of a gang that is gone and said nothing


@dataclass(frozen=True)
class Plan:
    """One attempt at a job: what to run, in how many processes, and until when (`service.store.clock`) it may run unasked."""

    job_id: str
    attempt: int
    trainer: tuple[str, ...]
    arguments: tuple[str, ...]
    processes: int
    until: float
    workdir: Path
    grace_seconds: float
    env: Mapping[str, str]

    @property
    def log_path(self) -> Path:
        return self.workdir / "trainer.log"


class Gang(Protocol):
    """The processes of one attempt; leave its `with` block and none of them is left.

    `batches` reads rank 0's events and has to be consumed; the others may be called from any thread.
    """

    log: ProcessLog
    stop_requested: bool
    kill_requested: bool

    @property
    def exit_code(self) -> int | None:
        """0 for success, `EXIT_STOPPED` for what may go on elsewhere, minus N for signal N; None while it runs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def batches(self, every_seconds: float) -> Iterator[list[Event]]:
        """The events since the last batch, until the gang has ended; then `exit_code` is set."""
        ...

    def beat(self, until: float) -> None:
        """Say until when it may run."""
        ...

    def stop(self) -> None:
        """Ask every rank to save and leave; end them when they have not left after the grace time."""
        ...

    def kill(self) -> None:
        """End every rank now."""
        ...


class Launcher(Protocol):
    def start(self, plan: Plan) -> Gang:
        """Start the gang. Raises `AlignmentError` where the engine refuses it."""
        ...

    def end_orphans(self, job_id: str, attempt: int) -> None:
        """End what earlier attempts at the job left running, if anything: their workers are lost."""
        ...
