"""How long checkpoints stay, over HTTP. `client.retention` is one of these."""

from attune.connection import Connection
from attune.requests import checkpoint_path, job_path
from attune.resources.checkpoints import Checkpoint
from attune.resources.retention import JobRetention, RetentionPolicy


class Retention:
    """Policies and pins. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def policy(self) -> RetentionPolicy:
        """The project's policy."""
        return RetentionPolicy.model_validate(self._connection.request("GET", "/v1/retention"))

    def of_job(self, job_id: str) -> JobRetention:
        """The policy that a job is under, and what the next sweep does with each of its checkpoints."""
        return JobRetention.model_validate(self._connection.request("GET", f"{job_path(job_id)}/retention"))

    def put(
        self,
        job_id: str | None = None,
        *,
        keep_last: int | None = None,
        keep_best: bool = True,
        ttl_days: float | None = None,
        unfinished_days: float | None = None,
    ) -> None:
        """Put the policy of a job, or without one of the project, which asks for the scope `admin`."""
        path = "/v1/retention" if job_id is None else f"{job_path(job_id)}/retention"
        body = {
            "keep_last": keep_last,
            "keep_best": keep_best,
            "ttl_days": ttl_days,
            "unfinished_days": unfinished_days,
        }
        self._connection.request("PUT", path, json=body)

    def give_up(self, job_id: str) -> JobRetention:
        """Give up a job's own policy: the project's counts again."""
        return JobRetention.model_validate(self._connection.request("DELETE", f"{job_path(job_id)}/retention"))

    def pin(self, checkpoint_id: str) -> Checkpoint:
        """Keep a checkpoint from every policy and from deletion."""
        return Checkpoint.model_validate(self._connection.request("POST", f"{checkpoint_path(checkpoint_id)}/pin"))

    def unpin(self, checkpoint_id: str) -> Checkpoint:
        return Checkpoint.model_validate(self._connection.request("POST", f"{checkpoint_path(checkpoint_id)}/unpin"))
