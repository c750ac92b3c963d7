"""What a server refused, in the words of what was sent: the file, its fields, its rows."""

from alignment_core.reports import DatasetProblem
from attune.client import Client
from attune.errors import AttuneError
from attune.resources.data import Dataset
from attune.resources.jobs import Job
from attune.specs import JobFile

MOST_ROWS = 10


def create_job(client: Client, job: JobFile, *, check_only: bool = False) -> Job:
    """Queue the job; `ValueError` names the file and the fields that were refused."""
    try:
        return client.create_job(
            job.spec,
            name=job.name,
            metadata=job.metadata,
            resume_from=job.resume_from,
            retention=job.retention,
            pins=job.pins,
            check_only=check_only,
        )
    except AttuneError as error:
        if not error.errors:
            raise
        raise ValueError(job.told(error.errors)) from error


def unusable(client: Client, dataset: Dataset, error: AttuneError) -> str:
    """Which data set, why, and which rows; there are rows to tell when it could be read at all."""
    reason = f"{dataset.id} ({dataset.filename}) cannot be used: {error.detail} [{error.code}]"
    try:
        report = client.dataset_report(dataset.id)
    except AttuneError:
        failed = client.get_dataset(dataset.id).error
        return reason + (f"\n{failed.hint}" if failed is not None and failed.hint else "")
    broken = [problem for problem in report.problems if problem.severity == "error"]
    lines = [line for problem in broken for line in _lines(problem, report.num_rows)]
    return "\n  ".join([reason, *lines]) + f"\nall of it: attune dataset report {dataset.id}"


def _lines(problem: DatasetProblem, num_rows: int) -> list[str]:
    """The problem with its rows, and the rows' own reasons where they differ."""
    own = [f"  row {detail.row}: {detail.message}" for detail in problem.details[:MOST_ROWS]]
    return [f"{_rows(problem)} of {num_rows}: {problem.message}", *own]


def _rows(problem: DatasetProblem) -> str:
    shown = ", ".join(str(row) for row in problem.rows[:MOST_ROWS])
    left = problem.count - min(len(problem.rows), MOST_ROWS)
    return f"row{'s' if problem.count > 1 else ''} {shown}" + (f" and {left} more" if left else "")
