"""A job that names an alias begins from the checkpoint that it points at, when the job is created; the job's spec has the checkpoint."""

from alignment_core.spec import AliasSource, CheckpointSource, JobSpec
from alignment_core.spec.start import StartSpec
from service.api.context import Parts
from service.errors import FieldProblem
from service.store import aliases, jobs, outputs


def with_named_model(parts: Parts, project_id: str, spec: JobSpec) -> tuple[JobSpec, list[FieldProblem]]:
    """The spec with the alias replaced by what it stands for, or why it cannot be.

    A full fine-tune is the model itself. A LoRA is the model that it was trained on with the LoRA merged into it, on which the
    job's own adapter is trained.
    """
    if not isinstance(spec.model, AliasSource):
        return spec, []
    alias = aliases.get(parts.store, project_id, spec.model.name)
    found = None if alias is None else alias.promotion.checkpoint_id
    checkpoint = None if found is None else outputs.get_checkpoint(parts.store, project_id, found)
    job = None if checkpoint is None else jobs.get(parts.store, project_id, checkpoint.job_id)
    if checkpoint is None or job is None:
        message = f"there is no alias {spec.model.name!r} in this project"
        return spec, [FieldProblem(pointer="/spec/model/name", code="alias_not_found", message=message)]
    source = CheckpointSource(id=checkpoint.id)
    if checkpoint.kind == "full":
        return spec.model_copy(update={"model": source}), []
    if spec.start is not None:
        message = (
            f"the alias {spec.model.name!r} stands for a LoRA, which is the start: leave start out, or name a model"
        )
        return spec, [FieldProblem(pointer="/spec/start", code="start_unfit", message=message)]
    base = JobSpec.model_validate(job.spec).model
    return spec.model_copy(update={"model": base, "start": StartSpec(lora=source, mode="merge")}), []
