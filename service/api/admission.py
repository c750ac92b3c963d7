"""Whether a spec may become a job here: its names are known, its data is ready, its paths are allowed."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from alignment_core.model_files import ModelReport
from alignment_core.reports import DatasetReport
from alignment_core.spec import JobSpec, StoredDataset
from alignment_core.spec.continuation import broken_by
from alignment_core.spec.counted import counted
from alignment_core.spec.warnings import small_images, warnings_of
from service.api.context import Parts
from service.api.estimates import estimate_of, model_of, problems_of_memory
from service.api.model_reports import family_of, foreseen, resolved, unread
from service.api.named_models import with_named_model
from service.api.named_prompts import problems_of_prompt_sets, with_prompt_sets
from service.api.placement import card_gib, problems_of_placement
from service.api.prospects import (
    problems_of_class,
    problems_of_data,
    problems_of_device,
    problems_of_model,
    problems_of_processes,
    resolution_of,
    warnings_of_model,
)
from service.api.schemas.estimates import Estimate
from service.api.schemas.jobs import JobRequest, Validation
from service.api.scorable import problems_of_prompts
from service.api.starts import problems_of_layers, problems_of_start
from service.errors import FieldProblem, field_problems, invalid_request
from service.store import datasets, jobs, outputs
from service.store.catalog import check_spec, stored_datasets
from service.store.records.uploads import DatasetRecord


def with_model_of_alias(parts: Parts, project_id: str, body: JobRequest) -> JobRequest:
    """The request with the checkpoint in place of the alias that it names; 422 where there is no such alias."""
    spec, errors = with_named_model(parts, project_id, body.spec)
    if errors:
        raise invalid_request(errors)
    return body.model_copy(update={"spec": spec})


def refuse_unfit(parts: Parts, project_id: str, body: JobRequest) -> None:
    """Raise 422 with everything that keeps this server from running the job."""
    if errors := [
        *unfit(parts, project_id, body.spec),
        *unfit_start(parts, project_id, body),
        *pinned_in_vain(body, first_step(parts, project_id, body)),
    ]:
        raise invalid_request(errors)


def unfit_start(parts: Parts, project_id: str, body: JobRequest) -> list[FieldProblem]:
    """What keeps the job from going on from the checkpoint that it should begin from."""
    if body.resume_from is None:
        return []
    pointer, checkpoint_id = "/resume_from/checkpoint_id", body.resume_from.checkpoint_id
    checkpoint = outputs.get_checkpoint(parts.store, project_id, checkpoint_id)
    before = None if checkpoint is None else jobs.get(parts.store, project_id, checkpoint.job_id)
    if checkpoint is None or before is None:
        message = f"there is no checkpoint {checkpoint_id!r} in this project"
        return [FieldProblem(pointer=pointer, code="checkpoint_not_found", message=message)]
    family = family_of(parts, project_id, JobSpec.model_validate(before.spec))
    found = [
        FieldProblem(
            pointer=f"/spec{broken}",
            code="checkpoint_of_another_kind",
            message=f"a run that begins from {checkpoint_id} must have the {broken.rpartition('/')[2]} of its job, {before.id}",
        )
        for broken in broken_by(JobSpec.model_validate(before.spec), body.spec, family)
    ]
    if checkpoint.step >= body.spec.training.steps:
        message = f"the checkpoint is of step {checkpoint.step}: nothing would be left to train"
        found.append(FieldProblem(pointer="/spec/training/steps", code="nothing_left_to_train", message=message))
    return found


def first_step(parts: Parts, project_id: str, body: JobRequest) -> int:
    """That of the checkpoint which the job begins from; 0 without one."""
    begin = body.resume_from
    found = None if begin is None else outputs.get_checkpoint(parts.store, project_id, begin.checkpoint_id)
    return 0 if found is None else found.step


def pinned_in_vain(body: JobRequest, first: int) -> list[FieldProblem]:
    """Steps that are to be pinned, and at which a job that begins from step `first` saves no checkpoint."""
    every, last = body.spec.checkpoints.every, body.spec.training.steps
    begins, saves = f"the job begins from step {first}", f"one is every {every} steps and at the last, {last}"
    return [
        FieldProblem(
            pointer=f"/pins/steps/{number}",
            code="no_checkpoint_at_step",
            message=f"no checkpoint is saved at step {step}: {begins if step <= first else saves}",
        )
        for number, step in enumerate(body.pins.steps if body.pins else ())
        if step <= first or step > last or (step % every and step != last)
    ]


def estimated(parts: Parts, project_id: str, spec: JobSpec) -> Estimate:
    """What a resolved spec that nothing keeps from running would cost."""
    return estimate_of(parts, spec, _report(parts, project_id, spec), model_of(parts, project_id, spec))


def needed_gib(parts: Parts, project_id: str, spec: JobSpec) -> float | None:
    """What each process of such a spec needs of its card, where that is known."""
    return card_gib(parts, spec, model_of(parts, project_id, spec))


def unfit(parts: Parts, project_id: str, spec: JobSpec) -> list[FieldProblem]:
    """What keeps this server from running the spec; pointers are into the body `{"spec": ...}`."""
    problems = check_spec(
        spec,
        parts.catalog,
        allow_local_paths=parts.settings.allow_local_paths,
        allow_hub_datasets=parts.settings.allow_hub_datasets,
        remote_reward_hosts=parts.settings.remote_reward_hosts,
    )
    found = [FieldProblem(pointer=f"/spec{one.pointer}", code=one.code, message=one.message) for one in problems]
    for pointer, dataset_id in stored_datasets(spec):
        dataset = datasets.get(parts.store, project_id, dataset_id)
        if (problem := _unready(f"/spec{pointer}", dataset_id, dataset)) is not None:
            found.append(problem)
        elif spec.method.learns_from == "pairs" and _is_unpaired(dataset):
            message = f"data set {dataset_id!r} has single images, and {spec.method.type} learns from pairs: use diffusion_kto"
            found.append(FieldProblem(pointer=f"/spec{pointer}", code="dataset_unpaired", message=message))
    found += problems_of_prompt_sets(parts, project_id, spec)
    found += problems_of_start(parts, project_id, spec)
    if not found:  # what is foreseen rests on names and data that are in order
        spec = resolved(parts, project_id, spec)
        report = _report(parts, project_id, spec)
        found += problems_of_device(spec, parts.settings.worker_devices)
        found += problems_of_processes(spec, parts.settings.worker_processes)
        found += problems_of_class(spec, parts.settings.classes)
        model = foreseen(parts, project_id, spec)
        found += problems_of_model(spec, parts.catalog, model)
        found += problems_of_prompts(spec, parts.catalog)
        found += problems_of_layers(parts, project_id, spec, model)
        found += problems_of_data(spec, report) if report is not None else ()
    if not found:  # nor would it be of use to know what a spec takes that cannot run
        known = model_of(parts, project_id, spec)
        found += [*problems_of_memory(parts, spec, known)] or [*problems_of_placement(parts, spec, known)]
    return found


def _is_unpaired(dataset: DatasetRecord | None) -> bool:
    return dataset is not None and dataset.report is not None and dataset.report.get("kind") == "unpaired"


def validate_spec(parts: Parts, project_id: str, body: Any) -> Validation:
    """Everything that can be said of a body for `POST /v1/jobs` without storing it."""
    try:
        request = JobRequest.model_validate(body)
    except ValidationError as error:
        errors = field_problems(error, body, JobRequest)
        return Validation(valid=False, errors=errors, warnings=[], resolved_spec=None, estimate=None)
    spec, unnamed = with_named_model(parts, project_id, request.spec)
    if unnamed:  # of a model that nobody knows nothing can be said
        return Validation(valid=False, errors=unnamed, warnings=[], resolved_spec=None, estimate=None)
    request = request.model_copy(update={"spec": spec})
    errors = [
        *unfit(parts, project_id, spec),
        *unfit_start(parts, project_id, request),
        *pinned_in_vain(request, first_step(parts, project_id, request)),
    ]
    report = _report(parts, project_id, spec)
    is_refused = any(one.pointer.startswith("/spec/model") for one in errors)  # a refused path is not looked at
    model = None if is_refused else foreseen(parts, project_id, spec)
    family = None if is_refused else family_of(parts, project_id, spec)
    spec = with_prompt_sets(parts, project_id, spec.resolved(family))
    estimate = estimate_of(parts, spec, report, None if errors else model_of(parts, project_id, spec))
    warnings = [
        *warnings_of(spec, family),
        *warnings_of_model(spec, parts.catalog, model),
        *([] if is_refused else unread(parts, project_id, spec)),
        *_data_warnings(estimate, report),
        *_size_warnings(parts, spec, report, model),
    ]
    return Validation(valid=not errors, errors=errors, warnings=warnings, resolved_spec=spec, estimate=estimate)


def _report(parts: Parts, project_id: str, spec: JobSpec) -> DatasetReport | None:
    if not isinstance(spec.method.data, StoredDataset):
        return None
    dataset = datasets.get(parts.store, project_id, spec.method.data.id)
    return None if dataset is None or dataset.report is None else DatasetReport.model_validate(dataset.report)


def _data_warnings(estimate: Estimate, report: DatasetReport | None) -> Sequence[str]:
    if report is None:
        return []
    found = [f"{counted(problem.count, 'row')} of the data set: {problem.message}" for problem in report.problems]
    examples = estimate.num_training_examples
    if examples is not None and examples < estimate.examples_per_step:
        found.append(
            f"the data set has about {counted(examples, 'example')} to train on, fewer than the {estimate.examples_per_step} of one "
            "optimiser step: every step sees some more than once"
        )
    return found


def _size_warnings(parts: Parts, spec: JobSpec, report: DatasetReport | None, model: ModelReport | None) -> list[str]:
    """What is said of small images, where the resolution is in the spec, in the model's files or in the catalog."""
    if report is None:
        return []
    resolution = spec.method.resolution or resolution_of(spec, parts.catalog, model)
    message = None if resolution is None else small_images(report, resolution)
    return [] if message is None else [message]


def _unready(pointer: str, dataset_id: str, dataset: DatasetRecord | None) -> FieldProblem | None:
    match None if dataset is None else dataset.state:
        case None:
            code, message = "dataset_not_found", f"there is no data set {dataset_id!r} in this project"
        case "ready":
            return None
        case "failed":
            why = dataset.error.message if dataset is not None and dataset.error is not None else "its check failed"
            code, message = "dataset_failed", f"data set {dataset_id!r} cannot be used: {why}"
        case state:
            code, message = "dataset_not_ready", f"data set {dataset_id!r} is {state}; a job needs one that is ready"
    return FieldProblem(pointer=pointer, code=code, message=message)
