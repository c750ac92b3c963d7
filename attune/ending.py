"""The last lines of a watched job: how it ended, what it gained, and what to type next."""

from collections.abc import Iterator

from alignment_core.reports import EvaluationReport, RewardComparison
from attune.client import Client
from attune.errors import AttuneError
from attune.resources.jobs import Job

NOT_FOUND = 404
VERDICTS = {
    "improved": "better than the model it started from",
    "worse": "worse than the model it started from",
    "not_improved": "no clear change",
    "unknown": "one prompt proves nothing",
}


def ending_of(client: Client, job: Job) -> Iterator[str]:
    """Lines for a job that has ended or is paused."""
    if job.status != "succeeded":
        yield job.status
        return
    if job.check_only:
        yield "the checks have passed; nothing was trained"
        return
    found = _report(client, job)
    if found is None:
        yield "succeeded, without a report: its spec asks for no evaluation"
    else:
        yield f"succeeded: {VERDICTS[found.verdict]}"
        yield from (gain_of(line) for line in _lines(found))
        yield f"the proof as a page:   attune report {job.id} --html report.html"
    yield f"the aligned weights:   attune checkpoint download {job.id} aligned"


def gain_of(line: RewardComparison) -> str:
    """`  colorfulness  0.677 -> 0.880  gain +0.203 (+0.183 .. +0.224)`."""
    low, high = line.gain_interval.low, line.gain_interval.high
    means = f"{line.base_mean:.3f} -> {line.policy_mean:.3f}"
    return f"  {line.name}  {means}  gain {line.gain:+.3f} ({low:+.3f} .. {high:+.3f})"


def _lines(report: EvaluationReport) -> list[RewardComparison]:
    following = report.prompt_following
    return [
        *report.rewards,
        *([] if following is None else [following.model_copy(update={"name": "prompt-following"})]),
    ]


def _report(client: Client, job: Job) -> EvaluationReport | None:
    try:
        return client.report(job.id)
    except AttuneError as error:
        if error.status == NOT_FOUND:
            return None
        raise
