"""Things by their id, within the caller's project. What is not there and what is another's answer the same 404."""

from typing import Annotated

from fastapi import Depends, Path

from service.api.context import PartsDep
from service.auth import ProjectDep
from service.errors import not_found
from service.store import datasets, jobs, outputs, prompt_sets, uploads
from service.store.database import Store
from service.store.ids import is_id
from service.store.kinds import Kind, kind_of
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.jobs import JobRecord, JobSummary
from service.store.records.uploads import DatasetRecord, PromptSetRecord, UploadKind, UploadRecord

JobPath = Annotated[str, Path(description="Id of a job.", examples=["job_01kaf0h2v7x3m5q8r1s4t6w9yz"])]
CheckpointPath = Annotated[str, Path(description="Id of a checkpoint.", examples=["ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"])]
DatasetPath = Annotated[str, Path(description="Id of a data set.", examples=["ds_01kaf0f6a2c4e6g8j0m2p4r6t8"])]
EvaluationPath = Annotated[str, Path(description="Id of an evaluation.", examples=["eval_01kaf0h2v7x3m5q8r1s4t6w9yz"])]
CandidatesPath = Annotated[str, Path(description="Id of candidates.", examples=["cand_01kaf0h2v7x3m5q8r1s4t6w9yz"])]
WeightsPath = Annotated[str, Path(description="Id of uploaded weights.", examples=["wts_01kaf0f6a2c4e6g8j0m2p4r6t8"])]
PromptSetPath = Annotated[str, Path(description="Id of a prompt set.", examples=["ps_01kaf0f6a2c4e6g8j0m2p4r6t8"])]
UploadPath = Annotated[str, Path(description="Id of an upload.", examples=["upl_01kaf0e4y6b8d0f2h4k6m8p0r2"])]


WORDS: dict[Kind, str] = {"job": "job", "eval": "evaluation", "vfy": "verification", "cand": "candidates"}


def _is_of(kind: Kind, row_id: str) -> bool:
    """Whether it is an id of this kind: an evaluation is no job, though both are rows of one table."""
    return is_id(row_id) and kind_of(row_id) == kind


def summary_or_404(kind: Kind, store: Store, project_id: str, row_id: str) -> JobSummary:
    """The project's row of this kind; raises 404. An id of another form is no id of ours, and no question for the database."""
    found = jobs.summary(store, project_id, row_id) if _is_of(kind, row_id) else None
    if found is None:
        raise not_found(WORDS[kind], row_id)
    return found


def whole_or_404(kind: Kind, store: Store, project_id: str, row_id: str) -> JobRecord:
    """The same with its spec."""
    found = jobs.get(store, project_id, row_id) if _is_of(kind, row_id) else None
    if found is None:
        raise not_found(WORDS[kind], row_id)
    return found


def _evaluation(evaluation_id: EvaluationPath, project_id: ProjectDep, parts: PartsDep) -> JobSummary:
    return summary_or_404("eval", parts.store, project_id, evaluation_id)


def _whole_evaluation(evaluation_id: EvaluationPath, project_id: ProjectDep, parts: PartsDep) -> JobRecord:
    return whole_or_404("eval", parts.store, project_id, evaluation_id)


def _candidates(candidates_id: CandidatesPath, project_id: ProjectDep, parts: PartsDep) -> JobSummary:
    return summary_or_404("cand", parts.store, project_id, candidates_id)


def _job(job_id: JobPath, project_id: ProjectDep, parts: PartsDep) -> JobSummary:
    return summary_or_404("job", parts.store, project_id, job_id)


def _whole_job(job_id: JobPath, project_id: ProjectDep, parts: PartsDep) -> JobRecord:
    return whole_or_404("job", parts.store, project_id, job_id)


def _checkpoint(checkpoint_id: CheckpointPath, project_id: ProjectDep, parts: PartsDep) -> CheckpointRecord:
    found = outputs.get_checkpoint(parts.store, project_id, checkpoint_id) if is_id(checkpoint_id) else None
    if found is None:
        raise not_found("checkpoint", checkpoint_id)
    return found


def dataset_or_404(store: Store, project_id: str, dataset_id: str) -> DatasetRecord:
    """The project's data set; raises 404."""
    return _upload_or_404(store, project_id, dataset_id, "data", "dataset")


def weights_or_404(store: Store, project_id: str, weights_id: str) -> DatasetRecord:
    """The project's uploaded weights; raises 404."""
    return _upload_or_404(store, project_id, weights_id, "lora", "weights")


def _upload_or_404(store: Store, project_id: str, identifier: str, kind: UploadKind, word: str) -> DatasetRecord:
    found = datasets.get(store, project_id, identifier) if is_id(identifier) else None
    if found is None or found.kind != kind:
        raise not_found(word, identifier)
    return found


def _dataset(dataset_id: DatasetPath, project_id: ProjectDep, parts: PartsDep) -> DatasetRecord:
    return dataset_or_404(parts.store, project_id, dataset_id)


def _weights(weights_id: WeightsPath, project_id: ProjectDep, parts: PartsDep) -> DatasetRecord:
    return weights_or_404(parts.store, project_id, weights_id)


def prompt_set_or_404(store: Store, project_id: str, prompt_set_id: str) -> PromptSetRecord:
    """The project's prompt set; raises 404."""
    found = prompt_sets.get(store, project_id, prompt_set_id) if is_id(prompt_set_id) else None
    if found is None:
        raise not_found("prompt_set", prompt_set_id)
    return found


def _prompt_set(prompt_set_id: PromptSetPath, project_id: ProjectDep, parts: PartsDep) -> PromptSetRecord:
    return prompt_set_or_404(parts.store, project_id, prompt_set_id)


def _upload(upload_id: UploadPath, project_id: ProjectDep, parts: PartsDep) -> UploadRecord:
    found = uploads.get(parts.store, project_id, upload_id) if is_id(upload_id) else None
    if found is None:
        raise not_found("upload", upload_id)
    return found


EvaluationDep = Annotated[JobSummary, Depends(_evaluation)]
WholeEvaluationDep = Annotated[JobRecord, Depends(_whole_evaluation)]
CandidatesDep = Annotated[JobSummary, Depends(_candidates)]
JobDep = Annotated[JobSummary, Depends(_job)]
WholeJobDep = Annotated[JobRecord, Depends(_whole_job)]
CheckpointDep = Annotated[CheckpointRecord, Depends(_checkpoint)]
DatasetDep = Annotated[DatasetRecord, Depends(_dataset)]
WeightsDep = Annotated[DatasetRecord, Depends(_weights)]
PromptSetDep = Annotated[PromptSetRecord, Depends(_prompt_set)]
UploadDep = Annotated[UploadRecord, Depends(_upload)]
