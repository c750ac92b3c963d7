"""Before an evaluation, some of one once more, or candidates: its models, its prompts and what was drawn already, brought to this machine."""

from pathlib import Path

from alignment_core.errors import AlignmentError
from alignment_core.spec import CandidatesSpec, ProofSpec
from alignment_core.spec.places import RunLabel
from service.store import candidates, proofs
from service.store.catalog import sources_of
from service.store.kinds import spec_of
from service.store.records.base import StoredFile
from service.store.records.jobs import Claim, JobRecord
from worker import inputs
from worker.parts import WorkerParts
from worker.preparing import prompt_places, starting_places

SCORES = "scores.parquet"
KNOWN, ALREADY = "known", "already.json"


def prepare_evaluation(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """The arguments of a run that finds everything its spec names, and every image that an earlier attempt drew."""
    _begin(workdir)
    inputs.fetch_files(parts, proofs.shards_of(parts.store, claim.job.id), workdir)
    return _written(parts, claim.job, workdir)


def prepare_verification(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """The arguments of a run that draws some of an evaluation's images again and compares them with its scores."""
    _begin(workdir)
    scores = _scores_of(parts, claim.job)
    inputs.fetch_files(parts, [scores], workdir)
    told = ["--verify", str(workdir / SCORES), "--prompts", str(claim.job.spec["num_prompts"])]
    return [*_written(parts, claim.job, workdir), *told]


def prepare_candidates(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """The arguments of a run that draws no image again that an earlier attempt drew, or other candidates of the project."""
    _begin(workdir)
    known = [one.file for one in candidates.known_images(parts.store, claim.job)]
    inputs.fetch_those_there(parts, known, workdir / KNOWN)
    already = candidates.drawn_already(parts.store, claim.job.id)
    (workdir / ALREADY).write_text(already.model_dump_json(), encoding="utf-8")
    return [*_written(parts, claim.job, workdir), "--already", str(workdir / ALREADY)]


def _begin(workdir: Path) -> None:
    inputs.remove(workdir)
    workdir.mkdir(parents=True, exist_ok=True)  # a read-only disk keeps it, and says so at the next write


def _scores_of(parts: WorkerParts, job: JobRecord) -> StoredFile:
    evaluation_id = job.spec["evaluation_id"]
    found = proofs.get_proof(parts.store, job.project_id, evaluation_id)
    if found is None or found.scores is None:
        raise AlignmentError("evaluation_missing", f"the evaluation {evaluation_id} does not exist any more")
    return found.scores


def _written(parts: WorkerParts, job: JobRecord, workdir: Path) -> list[str]:
    spec = spec_of(job)
    assert isinstance(spec, ProofSpec | CandidatesSpec)
    label = RunLabel(job_id=job.id, job_name=job.name)
    try:
        sources = sources_of(spec, parts.catalog, {}, label=label).model_copy(
            update={
                **starting_places(parts, job.project_id, spec, workdir),
                "prompt_sets": prompt_places(parts, job.project_id, spec),
            }
        )
    except KeyError as error:
        message = f"this worker's catalog has no {error.args[0]!r}"
        raise AlignmentError("catalog_entry_missing", message, category="system") from error
    return inputs.write_inputs(spec, sources, workdir, "draw" if isinstance(spec, CandidatesSpec) else "evaluate")
