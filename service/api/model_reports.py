"""What is known of a spec's model before any run: read by a worker once, or here where this machine has the folder."""

from pathlib import Path

from alignment_core.model_files import ModelReport, read_model_files, stamp_of
from alignment_core.spec import (
    AliasSource,
    CatalogSource,
    CheckpointSource,
    ContenderSpec,
    HubSource,
    JobSpec,
    LocalSource,
    SingleFileSource,
)
from alignment_core.spec.families import FamilyName
from service.api.context import Parts
from service.api.once import once
from service.store import jobs, known_models, outputs
from service.store.known_models import ModelFiles


def files_of(parts: Parts, project_id: str, spec: JobSpec | ContenderSpec) -> ModelFiles | None:
    """Where the files of the spec's, or a contender's, model are; None for what is not there any more.

    What an earlier job left has the layers and the configs of the model that the job began with.
    """
    match spec.model:
        case CatalogSource(name=name):
            entry = parts.catalog.models.get(name)
            return None if entry is None else entry.source
        case HubSource() | LocalSource() | SingleFileSource() as source:
            return source
        case AliasSource():  # a job has the checkpoint in its place
            return None
        case CheckpointSource(id=checkpoint_id):
            checkpoint = outputs.get_checkpoint(parts.store, project_id, checkpoint_id)
            job = None if checkpoint is None else jobs.get(parts.store, project_id, checkpoint.job_id)
            return None if job is None else files_of(parts, project_id, JobSpec.model_validate(job.spec))


def report_of(parts: Parts, source: ModelFiles) -> ModelReport | None:
    """What a worker read; where this machine has the folder and it changed since, or nobody read it yet, what is seen here."""
    known = known_models.recall(parts.store, source)
    report = None if known is None else known.report
    if isinstance(source, HubSource):
        return report
    folder = Path(source.path)
    stamp = stamp_of(folder)
    if report is not None and stamp in (None, report.stamp):
        return report
    return read_model_files(folder)


def foreseen(parts: Parts, project_id: str, spec: JobSpec | ContenderSpec) -> ModelReport | None:
    """What is known of the spec's model; where that is nothing, a worker is asked to read it. The same all through a request."""
    key = ("foreseen", project_id, spec.model.model_dump_json())
    return once(key, lambda: _foreseen(parts, project_id, spec))


def _foreseen(parts: Parts, project_id: str, spec: JobSpec | ContenderSpec) -> ModelReport | None:
    source = files_of(parts, project_id, spec)
    if source is None:
        return None
    known_models.ask(parts.store, source)
    return report_of(parts, source)


def family_of(parts: Parts, project_id: str, spec: JobSpec | ContenderSpec) -> FamilyName | None:
    """The family of the spec's model by its files, or by the catalog's word where nobody has read them."""
    report = foreseen(parts, project_id, spec)
    if report is not None and report.family is not None:
        return report.family
    entry = parts.catalog.models.get(spec.model.name) if isinstance(spec.model, CatalogSource) else None
    return None if entry is None or entry.family == "clip" else entry.family


def resolved(parts: Parts, project_id: str, spec: JobSpec) -> JobSpec:
    """The spec with every default written out, those of the model's family too where that is known."""
    return spec.resolved(family_of(parts, project_id, spec))


def unread(parts: Parts, project_id: str, spec: JobSpec | ContenderSpec) -> list[str]:
    """The warning that nobody has read the model yet, or why nobody could."""
    source = files_of(parts, project_id, spec)
    if not isinstance(source, HubSource):
        return []
    known = known_models.recall(parts.store, source)
    if known is not None and known.report is not None:
        return []
    if known is not None and known.error is not None:
        return [f"the files of the model could not be read yet: {known.error}"]
    return [
        "no worker has read the files of the model yet: whether the rest of the spec fits it will be known when one has"
    ]
