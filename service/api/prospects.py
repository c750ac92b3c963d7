"""What can be known of a run before it is queued: why it could never end well, and what will probably disappoint.

A run finds all of it too, after it has waited, loaded a model and prepared its data.
"""

from collections.abc import Iterator, Sequence

from alignment_core.model_files import ModelReport
from alignment_core.reports import DatasetReport
from alignment_core.spec import (
    CatalogSource,
    ImageMethodSpec,
    JobSpec,
    LoraAdapter,
    OnlineMethodSpec,
)
from alignment_core.spec.families import FAMILIES, FamilyName, untrained_encoders
from alignment_core.spec.timesteps import TIMESTEP_PRESETS, TimestepPreset, UniformTimesteps
from alignment_core.spec.training import TRAINING_GUIDANCE, trains_text_encoders
from service.errors import FieldProblem
from service.resource_classes import ResourceClass, class_of
from service.store.catalog import Catalog

FAR = 4.0  # times the model's own resolution, or that part of it: nothing that it draws there is an image
NEAR = 1.5
MOST_TARGETS = 40  # that a message lists


def problems_of_device(spec: JobSpec, devices: Sequence[str]) -> Iterator[FieldProblem]:
    """Whether no worker has the device; where the operator did not say what they have, one may."""
    wanted = spec.resources.device
    if devices and wanted != "auto" and wanted not in devices:
        message = f"no worker of this server has {wanted}; they have {', '.join(devices)}. `auto` takes what there is"
        yield _problem("/resources/device", "device_unavailable", message)
    elif spec.training.precision == "fp16" and (wanted == "cpu" or tuple(devices) == ("cpu",)):
        message = "fp16 needs a GPU, and this runs on a CPU; use fp32 or bf16"
        yield _problem("/training/precision", "precision_unsupported", message)


def problems_of_processes(spec: JobSpec, num_processes: int | None) -> Iterator[FieldProblem]:
    """Whether it asks for more processes than a worker can start; where the operator did not say how many, it may."""
    wanted = spec.resources.processes
    if num_processes is not None and wanted > num_processes:
        message = (
            f"the workers of this server train a job in at most {num_processes} processes, and this asks for {wanted}"
        )
        yield _problem("/resources/processes", "too_many_processes", message)


def problems_of_class(spec: JobSpec, classes: Sequence[ResourceClass]) -> Iterator[FieldProblem]:
    """Whether it has too many processes for every class of jobs, so that no worker would ever take it."""
    wanted = spec.resources.processes
    if classes and class_of(wanted, None, classes) is None:
        largest = max(classes, key=lambda one: one.most)
        message = (
            f"no class of workers takes a job of {wanted} processes; the largest, {largest.name}, takes {largest.most}"
        )
        yield _problem("/resources/processes", "no_class_of_workers", message)


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


def resolution_of(spec: JobSpec, catalog: Catalog, model: ModelReport | None) -> int | None:
    """What the files say; the catalog's word where they were not read."""
    entry = catalog.models.get(spec.model.name) if isinstance(spec.model, CatalogSource) else None
    read = None if model is None else model.resolution
    return read if read is not None or entry is None else entry.resolution


def _family_of(spec: JobSpec, catalog: Catalog, model: ModelReport | None) -> FamilyName | None:
    """By the files; the catalog's word where they were not read."""
    entry = catalog.models.get(spec.model.name) if isinstance(spec.model, CatalogSource) else None
    read = None if model is None else model.family
    if read is not None or entry is None:
        return read
    return None if entry.family == "clip" else entry.family


def problems_of_model(spec: JobSpec, catalog: Catalog, model: ModelReport | None) -> Iterator[FieldProblem]:
    """Why the run cannot end well on this model, as far as its files have been read."""
    if model is not None and model.problem is not None:
        yield _problem("/model", model.problem.code, model.problem.message)
        return
    native, wanted = resolution_of(spec, catalog, model), spec.method.resolution
    if native is not None and wanted is not None and _ratio(native, wanted) > FAR:
        far = "more than 4 times" if wanted > native else "less than a quarter of"
        message = f"{wanted} pixels are {far} the {native} that the model draws"
        yield _problem("/method/transform/resolution", "resolution_unfit", message)
    family = _family_of(spec, catalog, model)
    if trains_text_encoders(spec.adapter) and family is not None and not FAMILIES[family].trains_encoders:
        yield _problem("/adapter/text_encoder", "text_encoder_unsupported", untrained_encoders(family))
    if model is None:
        return
    if wanted is not None and model.resolution_unit is not None and wanted % model.resolution_unit:
        message = f"{wanted} pixels: the model draws multiples of {model.resolution_unit}"
        yield _problem("/method/transform/resolution", "resolution_unfit", message)
    adapter = spec.adapter
    targets = adapter.target_modules if isinstance(adapter, LoraAdapter) else None
    if model.layers and targets and not any(map(model.has_layer, targets)):
        message = f"no layer of the model has a name that ends so; they end in {_targets(model)}"
        yield _problem("/adapter/target_modules", "adapter_target_missing", message)
    if model.num_timesteps is not None:
        yield from _problems_of_timesteps(spec, model, model.num_timesteps)
    if spec.method.needs_v_prediction and model.prediction_type not in (None, "v_prediction"):
        message = f"is for v-prediction models, and this one predicts {model.prediction_type}"
        yield _problem("/method/v_rescale", "v_rescale_unsupported", message)
    is_told = spec.training.embedded_guidance != TRAINING_GUIDANCE
    if is_told and model.family is not None and not FAMILIES[model.family].embeds_guidance:
        message = "is for models that are told their guidance, and this one is guided by a second forward"
        yield _problem("/training/embedded_guidance", "embedded_guidance_unsupported", message)
    if spec.method.needs_flow and model.prediction_type not in (None, "velocity"):
        message = f"is for flow matching, and this model predicts {model.prediction_type}"
        yield _problem("/method/flow_beta", "flow_beta_unsupported", message)


def warnings_of_model(spec: JobSpec, catalog: Catalog, model: ModelReport | None) -> Iterator[str]:
    """What the model can do and its author would probably not have asked of it."""
    native, wanted = resolution_of(spec, catalog, model), spec.method.resolution
    if native is not None and wanted is not None and NEAR < _ratio(native, wanted) <= FAR:
        yield f"method.transform.resolution is {wanted}, and the model draws {native} pixels: it learns what it never draws"
    entry = catalog.models.get(spec.model.name) if isinstance(spec.model, CatalogSource) else None
    if entry is not None and model is not None and model.family not in (None, entry.family):
        yield f"model: the catalog says that {entry.family!r} is its family, and its files are of {model.family!r}"
    if model is not None and model.layers and isinstance(spec.adapter, LoraAdapter):
        for name in spec.adapter.target_modules or ():
            if not model.has_layer(name):
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


def _problems_of_timesteps(spec: JobSpec, model: ModelReport, num_timesteps: int) -> Iterator[FieldProblem]:
    steps = spec.timesteps
    chosen = TIMESTEP_PRESETS[steps.name] if isinstance(steps, TimestepPreset) else steps
    if not isinstance(chosen, UniformTimesteps) and chosen.num_bins > num_timesteps:
        message = f"is {chosen.num_bins}, and the model has {num_timesteps} timesteps"
        yield _problem("/timesteps/num_bins", "too_many_bins", message)
    if isinstance(spec.method, OnlineMethodSpec):
        yield from _problems_of_sampling("/method", spec.method.num_inference_steps, model, num_timesteps)
        yield from _problems_of_noise(spec.method, model)
    yield from _problems_of_sampling("/evaluation", spec.evaluation.num_inference_steps, model, num_timesteps)


def _problems_of_sampling(
    section: str, num_steps: int, model: ModelReport, num_timesteps: int
) -> Iterator[FieldProblem]:
    pointer = f"{section}/num_inference_steps"
    if num_steps > num_timesteps:
        message = f"is {num_steps}, and the model has {num_timesteps} timesteps"
        yield _problem(pointer, "too_many_sampling_steps", message)
    elif num_steps in model.unfit_steps:
        message = (
            f"is {num_steps}, for which the model's scheduler has no timesteps; {_nearest(num_steps, model)} would do"
        )
        yield _problem(pointer, "sampling_steps_unsupported", message)


def _problems_of_noise(method: OnlineMethodSpec, model: ModelReport) -> Iterator[FieldProblem]:
    """Whether more steps are trained than have a density."""
    silent = method.must_have_noise(model.silent_steps(method.num_inference_steps, method.eta))
    if not silent:
        return
    numbers = ", ".join(str(method.num_inference_steps - index) for index in sorted(silent)[-MOST_TARGETS:])
    message = (
        f"{method.trained_steps} of {method.num_inference_steps} steps are trained, and step {numbers}, counted down to 1, has "
        f"too little noise for a density at eta {method.eta:g}: raise method.eta, or train fewer steps"
    )
    pointer = "/method/num_trained_steps" if "num_trained_steps" in type(method).model_fields else "/method"
    yield _problem(pointer, "no_noise_to_train_on", message)


def _nearest(num_steps: int, model: ModelReport) -> int:
    fewer = (steps for steps in range(num_steps, 0, -1) if steps not in model.unfit_steps)
    return next(fewer, num_steps)


def _holds_out_a_prompt(report: DatasetReport) -> bool:
    """Whether a split of the groups may leave one with a prompt; which groups are held out follows from the seed."""
    return report.num_groups > 1 and report.num_empty_prompts < report.num_rows


def _ratio(one: int, other: int) -> float:
    return max(one, other) / min(one, other)


def _targets(model: ModelReport) -> str:
    shown = ", ".join(model.targets[:MOST_TARGETS])
    return shown if len(model.targets) <= MOST_TARGETS else f"{shown} and {len(model.targets) - MOST_TARGETS} more"


def _problem(pointer: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"/spec{pointer}", code=code, message=message)
