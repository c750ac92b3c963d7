"""The gang on this host: one process, or torchrun and its ranks, under a guard that ends them with the lease."""

from worker.launch import launched
from worker.launchers.contract import Plan
from worker.process import TrainingProcess, guarded
from worker.warm import WarmTrainer


class LocalLauncher:
    """`warm`: where a process may wait that has imported already what the job needs."""

    def __init__(self, warm: WarmTrainer | None = None) -> None:
        self._warm = warm

    def start(self, plan: Plan) -> TrainingProcess:
        if self._warm is not None and (taken := self._warm.take(plan)) is not None:
            return taken
        command = [*launched(plan.trainer, plan.processes), *plan.arguments]
        guard = guarded(command, until=plan.until, cwd=plan.workdir, env=plan.env)
        return TrainingProcess(guard, log_path=plan.log_path, grace_seconds=plan.grace_seconds)

    def end_orphans(self, job_id: str, attempt: int) -> None:
        """Nothing: a guard has ended whatever ran for a lost worker."""
