"""The gang on this host: one process, or torchrun and its ranks, under a guard that ends them with the lease."""

from worker.launch import launched
from worker.launchers.contract import Plan
from worker.process import TrainingProcess


class LocalLauncher:
    def start(self, plan: Plan) -> TrainingProcess:
        return TrainingProcess(
            [*launched(plan.trainer, plan.processes), *plan.arguments],
            until=plan.until,
            cwd=plan.workdir,
            log_path=plan.log_path,
            grace_seconds=plan.grace_seconds,
            env=plan.env,
        )

    def end_orphans(self, job_id: str, attempt: int) -> None:
        """Nothing: a guard has ended whatever ran for a lost worker."""
