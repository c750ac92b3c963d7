"""What can be known of a run before it is queued: why it could never end well, and what will probably disappoint.

A run finds all of it too, after it has waited, loaded a model and prepared its data.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from alignment_core.reports import DatasetReport
from alignment_core.spec import (
    CatalogSource,
    ImageMethodSpec,
    JobSpec,
    LocalSource,
    LoraAdapter,
    OnlineMethodSpec,
)
from alignment_core.spec.timesteps import TIMESTEP_PRESETS, TimestepPreset, UniformTimesteps
from service.errors import FieldProblem
from service.store.catalog import Catalog, LocalModel
from service.store.model_files import ModelFiles, read_model_files

FAR_ABOVE = 4.0  # times the model's own resolution: nothing that it draws there is an image
ABOVE = 1.5


def problems_of_device(spec: JobSpec, devices: Sequence[str]) -> Iterator[FieldProblem]:
    """Whether no worker has the device; where the operator did not say what they have, one may."""
    wanted = spec.resources.device
    if devices and wanted != "auto" and wanted not in devices:
        message = f"no worker of this server has {wanted}; they have {', '.join(devices)}. `auto` takes what there is"
        yield _problem("/resources/device", "device_unavailable", message)


def problems_of_data(spec: JobSpec, report: DatasetReport) -> Iterator[FieldProblem]:
    """Why the run cannot end well on this data set."""
    method, evaluation = spec.method, spec.evaluation
    if isinstance(method, ImageMethodSpec):
        yield from _problems_of_one_class(method, report)
    elif method.drops_ties and report.num_usable_rows <= report.num_ties:
        yield _problem(
            "/method/ties", "no_usable_rows", f"all {report.num_usable_rows} usable rows are ties: set it to keep"
        )
    if evaluation.rewards and evaluation.prompts is None and not _holds_out_a_prompt(report):
        message = (
            "evaluation.rewards asks for a report, and the data set leaves no held-out prompts: its rows are one group, or "
            "have no prompt. Give prompts here"
        )
        yield _problem("/evaluation/prompts", "no_evaluation_prompts", message)


def problems_of_model(spec: JobSpec, catalog: Catalog) -> Iterator[FieldProblem]:
    """Why the run cannot end well on this model, as far as this machine can read it."""
    if (native := _resolution(spec, catalog)) is not None:
        wanted = _wanted_resolution(spec)
        if wanted is not None and wanted > FAR_ABOVE * native:
            message = f"{wanted} pixels are more than {FAR_ABOVE:g} times the {native} that the model draws"
            yield _problem("/method/transform/resolution", "resolution_unfit", message)
    if (files := _files(spec, catalog)) is None:
        return
    adapter = spec.adapter
    if files.layers and isinstance(adapter, LoraAdapter) and not any(map(files.has_layer, adapter.target_modules)):
        message = f"no layer of the model has a name that ends so, such as {_example(files)}"
        yield _problem("/adapter/target_modules", "adapter_target_missing", message)
    if files.num_timesteps is not None:
        yield from _problems_of_timesteps(spec, files.num_timesteps)
    method = spec.method
    if method.needs_v_prediction and files.prediction_type == "epsilon":
        message = "is for v-prediction models, and this one predicts epsilon"
        yield _problem("/method/v_rescale", "v_rescale_unsupported", message)


def warnings_of_model(spec: JobSpec, catalog: Catalog) -> Iterator[str]:
    """What the model can do and its author would probably not have asked of it."""
    native, wanted = _resolution(spec, catalog), _wanted_resolution(spec)
    if native is not None and wanted is not None and ABOVE * native < wanted <= FAR_ABOVE * native:
        yield f"method.transform.resolution is {wanted}, and the model draws {native} pixels: it learns what it never draws"
    files = _files(spec, catalog)
    if files is not None and files.layers and isinstance(spec.adapter, LoraAdapter):
        for name in spec.adapter.target_modules:
            if not files.has_layer(name):
                yield f"adapter.target_modules: no layer of the model has a name that ends in {name}"


def _problems_of_one_class(method: ImageMethodSpec, report: DatasetReport) -> Iterator[FieldProblem]:
    wanted = method.like_probability
    if wanted is None or report.kind == "pairs":
        return
    for missing, is_missing in (
        ("liked", report.num_likes == 0 and wanted > 0),
        ("disliked", report.num_dislikes == 0 and wanted < 1),
    ):
        if is_missing:
            message = f"is {wanted:g}, and the data set has no {missing} image: null takes the images as they are"
            yield _problem("/method/like_probability", "one_class", message)


def _problems_of_timesteps(spec: JobSpec, num_timesteps: int) -> Iterator[FieldProblem]:
    steps = spec.timesteps
    chosen = TIMESTEP_PRESETS[steps.name] if isinstance(steps, TimestepPreset) else steps
    if not isinstance(chosen, UniformTimesteps) and chosen.num_bins > num_timesteps:
        message = f"is {chosen.num_bins}, and the model has {num_timesteps} timesteps"
        yield _problem("/timesteps/num_bins", "too_many_bins", message)
    if isinstance(spec.method, OnlineMethodSpec) and spec.method.num_inference_steps > num_timesteps:
        message = f"is {spec.method.num_inference_steps}, and the model has {num_timesteps} timesteps"
        yield _problem("/method/num_inference_steps", "too_many_sampling_steps", message)
    if spec.evaluation.num_inference_steps > num_timesteps:
        message = f"is {spec.evaluation.num_inference_steps}, and the model has {num_timesteps} timesteps"
        yield _problem("/evaluation/num_inference_steps", "too_many_sampling_steps", message)


def _holds_out_a_prompt(report: DatasetReport) -> bool:
    """Whether a split of the groups may leave one with a prompt; which groups are held out follows from the seed."""
    return report.num_groups > 1 and report.num_empty_prompts < report.num_rows


def _resolution(spec: JobSpec, catalog: Catalog) -> int | None:
    entry = catalog.models.get(spec.model.name) if isinstance(spec.model, CatalogSource) else None
    return None if entry is None else entry.resolution


def _wanted_resolution(spec: JobSpec) -> int | None:
    return spec.method.resolution


def _files(spec: JobSpec, catalog: Catalog) -> ModelFiles | None:
    match spec.model:
        case CatalogSource(name=name):
            entry = catalog.models.get(name)
            return read_model_files(entry.path) if isinstance(entry, LocalModel) else None
        case LocalSource(path=path):
            return read_model_files(Path(path))
        case _:
            return None


def _example(files: ModelFiles) -> str:
    return min((name for name in files.layers or () if "attn" in name), default=min(files.layers or ("",)))


def _problem(pointer: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"/spec{pointer}", code=code, message=message)
