"""Whether an evaluation, or candidates, may run here: its names are known, its weights are ready, its checkpoints are what they are taken for."""

from collections.abc import Iterator

from alignment_core.reports import LoraReport
from alignment_core.spec import (
    AliasSource,
    CheckpointSource,
    ContenderSpec,
    Contest,
    JobSpec,
    LocalSource,
    PromptSetSource,
    SingleFileSource,
    StoredDenoiser,
    StoredLora,
)
from service.api.context import Parts
from service.api.denoiser_layers import unfit_denoiser
from service.api.lora_layers import unfit_layers
from service.api.model_reports import foreseen
from service.api.named_prompts import problems_of_prompt_sets, told
from service.errors import FieldProblem, invalid_request
from service.resource_classes import class_of
from service.store import aliases, datasets, jobs, outputs
from service.store.catalog import check_spec
from service.store.records.uploads import DatasetRecord


def resolved_contenders(parts: Parts, project_id: str, spec: Contest) -> Contest:
    """The spec as a worker runs it: the checkpoint of a LoRA as its job's model with it, prompt sets with their hash.

    Raises 422 with everything that keeps this server from running it.
    """
    spec = _with_aliases(parts, project_id, spec)
    problems = check_spec(
        spec,
        parts.catalog,
        allow_local_paths=parts.settings.allow_local_paths,
        remote_reward_hosts=parts.settings.remote_reward_hosts,
    )
    found = [_problem(one.pointer, one.code, one.message) for one in problems]
    found += problems_of_prompt_sets(parts, project_id, spec)
    found += _problems_of_machine(parts, spec)
    for index, contender in enumerate(spec.contenders):
        found += _problems_of_contender(parts, project_id, contender, f"/contenders/{index}")
    if found:
        raise invalid_request(found)
    contenders = tuple(_with_model(parts, project_id, one) for one in spec.contenders)
    prompts = told(parts, project_id, spec.prompts) if isinstance(spec.prompts, PromptSetSource) else spec.prompts
    return spec.resolved().model_copy(update={"contenders": contenders, "prompts": prompts})


def _with_aliases(parts: Parts, project_id: str, spec: Contest) -> Contest:
    """The spec with the checkpoint in place of each alias that a contender names; 422 where there is no such alias."""
    contenders, errors = [], []
    for index, one in enumerate(spec.contenders):
        if isinstance(one.model, AliasSource):
            alias = aliases.get(parts.store, project_id, one.model.name)
            checkpoint_id = None if alias is None else alias.promotion.checkpoint_id
            if checkpoint_id is None:
                message = f"there is no alias {one.model.name!r} in this project"
                errors.append(_problem(f"/contenders/{index}/model/name", "alias_not_found", message))
                continue
            one = one.model_copy(update={"model": CheckpointSource(id=checkpoint_id)})
        contenders.append(one)
    if errors:
        raise invalid_request(errors)
    return spec.model_copy(update={"contenders": tuple(contenders)})


def _problems_of_machine(parts: Parts, spec: Contest) -> Iterator[FieldProblem]:
    wanted, settings = spec.resources, parts.settings
    if settings.worker_devices and wanted.device not in ("auto", *settings.worker_devices):
        there = ", ".join(settings.worker_devices)
        message = f"no worker of this server has {wanted.device}; they have {there}. `auto` takes what there is"
        yield _problem("/resources/device", "device_unavailable", message)
    if settings.worker_processes is not None and wanted.processes > settings.worker_processes:
        message = f"the workers of this server run at most {settings.worker_processes} processes, and this asks for {wanted.processes}"
        yield _problem("/resources/processes", "too_many_processes", message)
    if settings.classes and class_of(wanted.processes, None, settings.classes) is None:
        message = f"no class of workers takes {wanted.processes} processes"
        yield _problem("/resources/processes", "no_class_of_workers", message)


def _problems_of_contender(
    parts: Parts, project_id: str, contender: ContenderSpec, pointer: str
) -> Iterator[FieldProblem]:
    if isinstance(contender.model, CheckpointSource):
        yield from _problems_of_model(parts, project_id, contender, f"{pointer}/model/id")
    match contender.lora:
        case StoredLora(id=found):
            weights = datasets.get(parts.store, project_id, found)
            yield from _problems_of_weights(found, weights, f"{pointer}/lora/id", "lora")
            yield from _problems_of_alpha(contender, weights, f"{pointer}/alpha")
            yield from _problems_of_layers(parts, project_id, contender, weights, f"{pointer}/lora/id")
        case CheckpointSource(id=found):
            yield from _problems_of_lora(parts, project_id, found, f"{pointer}/lora/id")
    if isinstance(contender.denoiser, StoredDenoiser):
        found = contender.denoiser.id
        weights = datasets.get(parts.store, project_id, found)
        yield from _problems_of_weights(found, weights, f"{pointer}/denoiser/id", "denoiser")
        yield from _problems_of_denoiser(parts, project_id, contender, weights, f"{pointer}/denoiser/id")


def _problems_of_model(parts: Parts, project_id: str, contender: ContenderSpec, pointer: str) -> Iterator[FieldProblem]:
    assert isinstance(contender.model, CheckpointSource)
    checkpoint = outputs.get_checkpoint(parts.store, project_id, contender.model.id)
    if checkpoint is None:
        yield _no_checkpoint(pointer, contender.model.id)
    elif checkpoint.kind == "lora" and contender.lora is not None:
        message = f"{checkpoint.id} is a LoRA, which stands for its job's model with it, and this contender has another"
        yield _problem(pointer, "checkpoint_of_another_kind", message)
    elif checkpoint.kind == "lora" and _is_on_merged(parts, project_id, checkpoint.job_id):
        message = (
            f"{checkpoint.id} is a LoRA on a model that another LoRA was merged into before it was trained, and a contender has one LoRA: "
            "export it as a whole model, and upload that"
        )
        yield _problem(pointer, "lora_on_merged_model", message)
    elif (
        isinstance(base := _with_model(parts, project_id, contender).model, CheckpointSource)
        and outputs.get_checkpoint(parts.store, project_id, base.id) is None  # what the LoRA's job was trained on
    ):
        yield _no_checkpoint(pointer, base.id)


def _is_on_merged(parts: Parts, project_id: str, job_id: str) -> bool:
    """Whether the job began with a LoRA merged into its model, as one does that began from a champion."""
    job = jobs.get(parts.store, project_id, job_id)
    start = None if job is None else JobSpec.model_validate(job.spec).start
    return start is not None and start.mode == "merge"


def _problems_of_lora(parts: Parts, project_id: str, checkpoint_id: str, pointer: str) -> Iterator[FieldProblem]:
    checkpoint = outputs.get_checkpoint(parts.store, project_id, checkpoint_id)
    if checkpoint is None:
        yield _no_checkpoint(pointer, checkpoint_id)
    elif checkpoint.kind != "lora":
        message = f'{checkpoint_id} is a whole model and no LoRA: write "model": "{checkpoint_id}"'
        yield _problem(pointer, "checkpoint_of_another_kind", message)


def _problems_of_weights(
    weights_id: str, weights: DatasetRecord | None, pointer: str, wanted: str
) -> Iterator[FieldProblem]:
    if weights is None or weights.kind != "lora":
        yield _problem(pointer, "weights_not_found", f"there are no weights {weights_id!r} in this project")
    elif weights.state == "failed":
        why = weights.error.message if weights.error is not None else "their check failed"
        yield _problem(pointer, "weights_failed", f"weights {weights_id!r} cannot be used: {why}")
    elif weights.state != "ready" or weights.report is None:
        message = f"weights {weights_id!r} are {weights.state}; an evaluation needs ones that are ready"
        yield _problem(pointer, "weights_not_ready", message)
    elif (held := LoraReport.model_validate(weights.report).holds) != wanted:
        words = {"lora": "a LoRA", "denoiser": "a whole denoiser"}
        message = f"weights {weights_id!r} are {words[held]}, and this is the place of {words[wanted]}"
        yield _problem(pointer, "weights_of_another_kind", message)


def _problems_of_alpha(contender: ContenderSpec, weights: DatasetRecord | None, pointer: str) -> Iterator[FieldProblem]:
    if weights is None or weights.report is None or contender.alpha is not None:
        return
    if not LoraReport.model_validate(weights.report).says_alpha:
        message = "a file of PEFT's does not say its alpha: write its lora_alpha here"
        yield _problem(pointer, "lora_alpha_unknown", message)


def _problems_of_layers(
    parts: Parts, project_id: str, contender: ContenderSpec, weights: DatasetRecord | None, pointer: str
) -> Iterator[FieldProblem]:
    """Where its layers are not the model's, as far as a worker has read both."""
    if weights is None or weights.report is None or _is_refused(parts, contender):
        return
    model = foreseen(parts, project_id, contender)
    why = None if model is None else unfit_layers(LoraReport.model_validate(weights.report), model)
    if why is not None:
        yield _problem(pointer, "lora_unfit", why)


def _problems_of_denoiser(
    parts: Parts, project_id: str, contender: ContenderSpec, weights: DatasetRecord | None, pointer: str
) -> Iterator[FieldProblem]:
    """The same of a whole denoiser's layers."""
    if weights is None or weights.report is None or _is_refused(parts, contender):
        return
    model = foreseen(parts, project_id, contender)
    why = None if model is None else unfit_denoiser(LoraReport.model_validate(weights.report), model)
    if why is not None:
        yield _problem(pointer, "denoiser_unfit", why)


def _is_refused(parts: Parts, contender: ContenderSpec) -> bool:
    """A path that this server does not take is not looked at."""
    return isinstance(contender.model, LocalSource | SingleFileSource) and not parts.settings.allow_local_paths


def _with_model(parts: Parts, project_id: str, contender: ContenderSpec) -> ContenderSpec:
    """The checkpoint of a LoRA written out."""
    if not isinstance(contender.model, CheckpointSource):
        return contender
    checkpoint = outputs.get_checkpoint(parts.store, project_id, contender.model.id)
    job = None if checkpoint is None else jobs.get(parts.store, project_id, checkpoint.job_id)
    if checkpoint is None or job is None or checkpoint.kind != "lora":
        return contender
    model = JobSpec.model_validate(job.spec).model
    return contender.model_copy(update={"model": model, "lora": contender.model})


def _no_checkpoint(pointer: str, checkpoint_id: str) -> FieldProblem:
    return _problem(pointer, "checkpoint_not_found", f"there is no checkpoint {checkpoint_id!r} in this project")


def _problem(pointer: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"/spec{pointer}", code=code, message=message)
