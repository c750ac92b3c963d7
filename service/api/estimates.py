"""What follows from a spec that could be run: how much is trained on what, and the memory that it takes."""

from collections.abc import Sequence
from typing import assert_never

from alignment_core.costs.memory import memory_of
from alignment_core.model_files import ModelReport
from alignment_core.reports import DatasetReport
from alignment_core.spec import FullFineTune, JobSpec, LoraAdapter
from alignment_core.spec.families import FamilyName
from service.api.schemas.jobs import Estimate


def estimate_of(
    spec: JobSpec,
    report: DatasetReport | None,
    model: ModelReport | None,
    family: FamilyName | None,
    *,
    devices: Sequence[str],
) -> Estimate:
    """What follows from the numbers of the spec, of the preflight report and of the model's files."""
    training, evaluation = spec.training, spec.evaluation
    examples_per_step = spec.examples_per_step
    examples = None if report is None else _training_examples(spec, report)
    prompts = None if evaluation.prompts is None else min(len(evaluation.prompts), evaluation.max_prompts)
    return Estimate(
        examples_per_step=examples_per_step,
        optimizer_steps=training.steps,
        num_training_examples=examples,
        epochs=round(training.steps * examples_per_step / examples, 2) if examples else None,
        num_checkpoints=-(-training.steps // spec.checkpoints.every),
        evaluation_images=None if prompts is None else 2 * prompts * evaluation.seeds_per_prompt,
        num_trainable_parameters=None if model is None else _trainable_parameters(spec, model),
        memory=None
        if model is None or family is None
        else memory_of(spec, model, family, is_half=_is_half(spec, devices)),
    )


def _is_half(spec: JobSpec, devices: Sequence[str]) -> bool:
    """Whether the networks run in half precision: `auto` does on a GPU, which a run takes where there is one."""
    if spec.training.precision != "auto":
        return spec.training.precision != "fp32"
    return spec.resources.device == "cuda" or (spec.resources.device == "auto" and "cuda" in devices)


def _trainable_parameters(spec: JobSpec, model: ModelReport) -> int | None:
    match spec.adapter:
        case LoraAdapter(target_modules=targets, rank=rank, text_encoder=None):
            return None if targets is None else model.num_adapter_parameters(targets, rank)
        case LoraAdapter():
            return None  # of the text encoders' layers nothing has been read
        case FullFineTune():
            return model.num_parameters
        case _:
            assert_never(spec.adapter)


def _training_examples(spec: JobSpec, report: DatasetReport) -> int:
    method = spec.method
    rows = report.num_usable_rows - (report.num_ties if method.drops_ties else 0)
    images = 2 if method.learns_from == "images" and report.kind == "pairs" else 1
    return round(rows * images * (1 - spec.training.validation_fraction))
