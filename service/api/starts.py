"""What a job starts from, known before it is queued: uploaded weights, and checkpoints of earlier jobs of the project."""

from collections.abc import Iterator

from alignment_core.model_files import ModelReport
from alignment_core.reports import LoraReport
from alignment_core.spec import CheckpointSource, JobSpec, LoraAdapter, StoredLora
from alignment_core.spec.families import FamilyName
from alignment_core.spec.sources import label_of
from alignment_core.spec.start import ALPHA_UNKNOWN
from service.api.context import Parts
from service.api.lora_layers import of_denoiser, unfit_layers
from service.api.model_reports import family_of
from service.errors import FieldProblem
from service.store import datasets, jobs, outputs
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.uploads import DatasetRecord


def problems_of_start(parts: Parts, project_id: str, spec: JobSpec) -> Iterator[FieldProblem]:
    """Why the job cannot start from what its spec names."""
    if isinstance(spec.model, CheckpointSource):
        yield from _problems_of_model(parts, project_id, spec.model.id)
    match spec.start and spec.start.lora:
        case StoredLora(id=found):
            yield from _problems_of_weights(spec, found, datasets.get(parts.store, project_id, found))
        case CheckpointSource(id=found):
            yield from _problems_of_lora(parts, project_id, spec, found)


def _problems_of_model(parts: Parts, project_id: str, checkpoint_id: str) -> Iterator[FieldProblem]:
    checkpoint = outputs.get_checkpoint(parts.store, project_id, checkpoint_id)
    if checkpoint is None:
        yield _no_checkpoint("/model/id", checkpoint_id)
    elif checkpoint.kind != "full":
        message = (
            f"{checkpoint_id} is a LoRA and no whole model: name its job's model here, and write "
            f'"start": {{"lora": "{checkpoint_id}"}}'
        )
        yield _problem("/model/id", "checkpoint_of_another_kind", message)


def _problems_of_lora(parts: Parts, project_id: str, spec: JobSpec, checkpoint_id: str) -> Iterator[FieldProblem]:
    checkpoint = outputs.get_checkpoint(parts.store, project_id, checkpoint_id)
    job = None if checkpoint is None else jobs.get(parts.store, project_id, checkpoint.job_id)
    if checkpoint is None or job is None:
        yield _no_checkpoint("/start/lora/id", checkpoint_id)
    elif checkpoint.kind != "lora":
        message = f'{checkpoint_id} is a whole model and no LoRA: write "model": "{checkpoint_id}" and leave start out'
        yield _problem("/start/lora/id", "checkpoint_of_another_kind", message)
    else:
        before = JobSpec.model_validate(job.spec)
        yield from _problems_of_trained(spec, checkpoint, before, family_of(parts, project_id, before))


def _problems_of_trained(
    spec: JobSpec, checkpoint: CheckpointRecord, before: JobSpec, family: FamilyName | None
) -> Iterator[FieldProblem]:
    if before.model != spec.model:
        message = (
            f"the LoRA {checkpoint.id} was trained on the model {label_of(before.model)!r}, and this job's is "
            f"{label_of(spec.model)!r}"
        )
        yield _problem("/start/lora/id", "base_model_differs", message)
    is_joined = before.start is not None and before.start.mode == "merge"
    if (
        spec.start is not None
        and spec.start.mode == "train"
        and not is_joined
        and (adapter := before.resolved(family).adapter) != spec.resolved(family).adapter
    ):
        message = f"start.mode train goes on with the adapter of {checkpoint.job_id}: {adapter.model_dump_json()}"
        yield _problem("/adapter", "start_unfit", message)


def _problems_of_weights(spec: JobSpec, weights_id: str, weights: DatasetRecord | None) -> Iterator[FieldProblem]:
    match None if weights is None else weights.state:
        case None:
            code, message = "weights_not_found", f"there are no weights {weights_id!r} in this project"
        case "ready" if _holds_a_denoiser(weights):
            code = "weights_of_another_kind"
            message = f"weights {weights_id!r} are a whole denoiser and no LoRA: only evaluations take them"
        case "ready":
            yield from _problems_of_alpha(spec, weights)
            yield from _problems_of_train(spec, weights)
            return
        case "failed":
            why = weights.error.message if weights is not None and weights.error is not None else "their check failed"
            code, message = "weights_failed", f"weights {weights_id!r} cannot be used: {why}"
        case state:
            code, message = "weights_not_ready", f"weights {weights_id!r} are {state}; a job needs ones that are ready"
    yield _problem("/start/lora/id", code, message)


def _holds_a_denoiser(weights: DatasetRecord | None) -> bool:
    return weights is not None and weights.report is not None and weights.report.get("holds") == "denoiser"


def _problems_of_alpha(spec: JobSpec, weights: DatasetRecord | None) -> Iterator[FieldProblem]:
    if weights is None or weights.report is None or spec.start is None or spec.start.alpha is not None:
        return
    if not LoraReport.model_validate(weights.report).says_alpha:
        yield _problem("/start/alpha", "lora_alpha_unknown", ALPHA_UNKNOWN)


def _problems_of_train(spec: JobSpec, weights: DatasetRecord | None) -> Iterator[FieldProblem]:
    """Where the adapter goes on, the spec says what it is, and the file has to agree."""
    adapter, start = spec.resolved().adapter, spec.start
    if start is None or start.mode != "train" or not isinstance(adapter, LoraAdapter):
        return
    if weights is None or weights.report is None:
        return
    report = LoraReport.model_validate(weights.report)
    text = adapter.text_encoder if report.changes_text_encoder else None
    if not set(report.ranks) <= {adapter.rank, *([] if text is None else [text.rank])}:
        yield _problem("/adapter/rank", "start_unfit", f"is {adapter.rank}, and {_expected('rank', report.ranks)}")
    if not set(report.alphas) <= {adapter.alpha, *([] if text is None else [text.alpha])} and start.alpha is None:
        yield _problem(
            "/adapter/alpha", "start_unfit", f"is {adapter.alpha:g}, and {_expected('alpha', report.alphas)}"
        )
    if report.changes_text_encoder and adapter.text_encoder is None:
        message = "the LoRA changes a text encoder too: write merge, or adapter.text_encoder to train it further"
        yield _problem("/start/mode", "start_unfit", message)


def problems_of_layers(
    parts: Parts, project_id: str, spec: JobSpec, model: ModelReport | None
) -> Iterator[FieldProblem]:
    """Where the LoRA's layers are not the model's, or with `train` not the adapter's; kohya's original names are left to the run."""
    start = spec.start
    if model is None or not model.layers or start is None or not isinstance(start.lora, StoredLora):
        return
    weights = datasets.get(parts.store, project_id, start.lora.id)
    if weights is None or weights.report is None:
        return
    lora = LoraReport.model_validate(weights.report)
    if (why := unfit_layers(lora, model)) is not None:
        yield _problem("/start/lora/id", "lora_unfit", why)
        return
    found = of_denoiser(lora, model)
    if start.mode == "train" and isinstance(spec.adapter, LoraAdapter) and spec.adapter.target_modules and found:
        yield from _problems_of_modules({module for module, _ in found.values()}, model, spec.adapter.target_modules)


def _problems_of_modules(modules: set[str], model: ModelReport, targets: tuple[str, ...]) -> Iterator[FieldProblem]:
    adapted = model.adapted(targets)
    if left_out := sorted(modules - adapted):
        message = f"leaves out {left_out[0]!r}, which the LoRA has"
        yield _problem("/adapter/target_modules", "start_unfit", message)
    elif more := sorted(adapted - modules):
        yield _problem("/adapter/target_modules", "start_unfit", f"takes in {more[0]!r}, which the LoRA does not have")


def _expected(name: str, values: list[int] | list[float]) -> str:
    if len(values) == 1:
        return f"the LoRA has the {name} {values[0]:g}: write that"
    return f"the LoRA's layers have the {name}s {', '.join(f'{value:g}' for value in values)}: write start.mode merge"


def _no_checkpoint(pointer: str, checkpoint_id: str) -> FieldProblem:
    return _problem(pointer, "checkpoint_not_found", f"there is no checkpoint {checkpoint_id!r} in this project")


def _problem(pointer: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"/spec{pointer}", code=code, message=message)
