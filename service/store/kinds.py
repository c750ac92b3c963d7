"""Kinds of rows of the table `jobs`, told by their ids: what a worker runs for an alignment, an evaluation, some of one
once more, or candidates, which people judge.

All of them wait in one queue, are claimed under one lease and fenced by their attempt; lists and look-ups keep them apart by the
prefix of the id, which every index of the table ends in.
"""

from typing import Literal, assert_never, get_args

from alignment_core.spec import CandidatesSpec, JobSpec, ProofSpec
from service.store.records.jobs import JobRecord

Kind = Literal["job", "eval", "vfy", "cand"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FIRST, LAST = "0" * 26, "z" * 26


def kind_of(job_id: str) -> Kind | None:
    """What the row of this id is for; None for the id of something else."""
    return next((kind for kind in KINDS if job_id.startswith(f"{kind}_")), None)


def ids_of(kind: Kind) -> tuple[str, str]:
    """The bounds that all ids of a kind lie between."""
    return f"{kind}_{FIRST}", f"{kind}_{LAST}"


def spec_of(job: JobRecord) -> JobSpec | ProofSpec | CandidatesSpec:
    """What the row's run is told."""
    match kind_of(job.id):
        case "job":
            return JobSpec.model_validate(job.spec)
        case "eval":
            return ProofSpec.model_validate(job.spec)
        case "vfy":
            return ProofSpec.model_validate(job.spec["evaluation"])
        case "cand":
            return CandidatesSpec.model_validate(job.spec)
        case None:
            raise AssertionError(f"{job.id} is no row of the queue")
        case kind:
            assert_never(kind)
