"""What a spec that could be run would cost: how much is trained on what, memory, seconds and bytes, and whether it fits at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from alignment_core.costs.calibration import bounds_of
from alignment_core.costs.memory import Memory, memory_of
from alignment_core.costs.rates import corrected, rates_of_card
from alignment_core.costs.seconds import Duration, duration_of
from alignment_core.costs.work import disk_of, num_checkpoints, work_of
from alignment_core.model_files import ModelReport
from alignment_core.reports import DatasetReport
from alignment_core.spec import Contest, FullFineTune, JobSpec, LoraAdapter
from alignment_core.spec.families import FamilyName
from alignment_core.spec.prompts import num_expected
from service.api.context import Parts
from service.api.model_reports import family_of, foreseen
from service.api.once import once
from service.api.schemas.estimates import Calibration, Estimate
from service.errors import FieldProblem
from service.store import cards, usage
from service.store.records.catalog import CardRecord

GIB = 2**30
WITHIN = 0.8  # measured, an estimate was a fifth too high at most: what may fit by then is let through
RESERVED_GIB = 0.7  # a card's context and libraries, measured on an H100
LEAST_TOLD_GIB = 0.05


@dataclass(frozen=True)
class Model:
    """What estimates are made from: what was read of a model whose family is known."""

    report: ModelReport
    family: FamilyName


def model_of(parts: Parts, project_id: str, spec: JobSpec) -> Model | None:
    """What is known of the spec's model; None where that is too little."""
    report, family = foreseen(parts, project_id, spec), family_of(parts, project_id, spec)
    return None if report is None or family is None else Model(report, family)


def estimate_of(parts: Parts, spec: JobSpec, report: DatasetReport | None, model: Model | None) -> Estimate:
    """What follows from the numbers of the resolved spec, of the preflight report and of the model's files."""
    training, evaluation = spec.training, spec.evaluation
    examples_per_step = spec.examples_per_step
    examples = None if report is None else _training_examples(spec, report)
    prompts = None
    if evaluation.prompts is not None:
        prompts = min(num_expected(evaluation.prompts, evaluation.max_prompts), evaluation.max_prompts)
    is_half = runs_in_half(spec, cards_for(parts, spec), parts.settings.worker_devices)
    here = on_its_device(spec, cards_for(parts, spec), parts.settings.worker_devices)
    has_layers = model is not None and model.report.layers is not None
    duration = None if model is None else _duration(parts, spec, model, examples, is_half=is_half)
    return Estimate(
        examples_per_step=examples_per_step,
        optimizer_steps=training.steps,
        num_training_examples=examples,
        epochs=round(training.steps * examples_per_step / examples, 2) if examples else None,
        num_checkpoints=num_checkpoints(spec),
        evaluation_images=None if prompts is None else 2 * prompts * evaluation.seeds_per_prompt,
        num_trainable_parameters=None if model is None else _trainable_parameters(spec, model.report),
        memory=None if model is None else memory_of(here, model.report, model.family, is_half=is_half),
        duration=duration,
        calibration=None if model is None or duration is None else _calibration(parts, spec, model, duration),
        disk=disk_of(spec, model.report, model.family, num_examples=examples, is_half=is_half)
        if model is not None and has_layers
        else None,
    )


def cards_for(parts: Parts, spec: JobSpec | Contest) -> list[CardRecord]:
    """The workers' cards that the job may run on, the largest first: GPUs where a worker has any, unless it asks for none."""
    known, wanted = once("cards", lambda: cards.known(parts.store)), spec.resources.device
    gpus = [card for card in known if card.device == "cuda"]
    if wanted == "cuda" or (wanted == "auto" and gpus):
        return gpus
    return [card for card in known if card.device == "cpu"]


def problems_of_memory(parts: Parts, spec: JobSpec, model: Model | None) -> Iterator[FieldProblem]:
    """Whether no card of the workers can hold the run; where no worker has said what it has, one may.

    Nobody is refused by what is not estimated: weights that lie in shares over several cards.
    """
    fitting = cards_for(parts, spec)
    if model is None or not fitting or spec.resources.strategy == "fsdp2":
        return
    spec = on_its_device(at_its_smallest(spec), fitting, parts.settings.worker_devices)
    is_half = runs_in_half(spec, fitting, parts.settings.worker_devices)
    memory, largest = memory_of(spec, model.report, model.family, is_half=is_half), fitting[0]
    room = largest.memory_bytes / GIB - RESERVED_GIB
    if memory is None or memory.peak_gib * WITHIN <= room:
        return
    message = (
        f"needs about {memory.peak_gib:.1f} GiB while {memory.phase} ({components(memory)}), and the largest card of the "
        f"workers, {largest.name}, has room for {max(room, 0):.1f}. {remedies(spec, model, memory, is_half=is_half)}"
    )
    yield FieldProblem(pointer="/spec/training/batch_size", code="does_not_fit", message=message)


def at_its_smallest(spec: JobSpec) -> JobSpec:
    """As a run may come to be that halves its micro-batch until it has room."""
    if spec.training.micro_batch != "auto":
        return spec
    return spec.model_copy(update={"training": spec.training.model_copy(update={"batch_size": 1})})


def components(memory: Memory) -> str:
    sizes = memory.model_dump(
        exclude={"peak_gib", "phase", "activations" if memory.phase != "training" else "vae_decode"}
    )
    told = sorted(sizes.items(), key=lambda one: -one[1])
    return ", ".join(f"{name.replace('_', ' ')} {size:.1f}" for name, size in told if size > LEAST_TOLD_GIB)


def remedies(spec: JobSpec, model: Model, memory: Memory, *, is_half: bool) -> str:
    """What would need less, each by itself, with what it would need."""
    training = spec.training
    changes = {
        "training.batch_size 1": {"training": training.model_copy(update={"batch_size": 1})},
        "training.gradient_checkpointing": {"training": training.model_copy(update={"gradient_checkpointing": True})},
        "training.optimizer adamw_8bit": {"training": training.model_copy(update={"optimizer": "adamw_8bit"})},
        "a LoRA": {"adapter": LoraAdapter().resolved()},
        "evaluation.batch_size 1": {"evaluation": spec.evaluation.model_copy(update={"batch_size": 1})},
    }
    if training.optimizer != "adamw":
        del changes["training.optimizer adamw_8bit"]
    if not isinstance(spec.adapter, FullFineTune):
        del changes["a LoRA"]
    found = []
    for name, change in changes.items():
        less = memory_of(
            spec.model_copy(update=change).resolved(model.family), model.report, model.family, is_half=is_half
        )
        if less is not None and less.peak_gib < 0.95 * memory.peak_gib:
            found.append(f"{name} ({less.peak_gib:.1f} GiB)")
    return f"What would need less: {', '.join(found)}" if found else "Nothing in the spec would need much less"


def _duration(parts: Parts, spec: JobSpec, model: Model, num_examples: int | None, *, is_half: bool) -> Duration | None:
    """On the card with the most memory, since nobody knows which worker will be free."""
    prompts = num_expected(spec.evaluation.prompts, unknown=spec.evaluation.max_prompts)
    work = work_of(spec, model.report, model.family, num_examples=num_examples, num_prompts=prompts)
    if work is None:
        return None
    card = next(iter(cards_for(parts, spec)), None)
    is_gpu = is_half if card is None else card.device == "cuda"
    assumed = rates_of_card(None if card is None else card.name, is_gpu=is_gpu, is_half=is_half)
    measured = {} if card is None else cards.rates_of(parts.store, card.name, model.family)
    return duration_of(work, corrected(assumed, measured), None if card is None else card.name)


def _calibration(parts: Parts, spec: JobSpec, model: Model, duration: Duration) -> Calibration:
    shape = ", ".join(
        (spec.method.type, model.family, spec.adapter.type, duration.card or "unknown card", duration.source)
    )
    ratios = usage.ratios_of(parts.store, shape)
    low, high = bounds_of(ratios) or (None, None)
    expected = duration.total.expected
    return Calibration(
        shape=shape,
        num_jobs=len(ratios),
        low=None if low is None else float(f"{low * expected:.3g}"),
        high=None if high is None else float(f"{high * expected:.3g}"),
    )


def on_its_device(spec: JobSpec, fitting: list[CardRecord], devices: tuple[str, ...]) -> JobSpec:
    """The spec with the CPU for its device where `auto` comes to that: nothing leaves it."""
    is_gpu = fitting[0].device == "cuda" if fitting else "cuda" in devices
    if spec.resources.device != "auto" or is_gpu:
        return spec
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"device": "cpu"})})


def runs_in_half(spec: JobSpec, fitting: list[CardRecord], devices: tuple[str, ...]) -> bool:
    """Whether the networks run in half precision: `auto` does on a GPU, which a run takes where there is one."""
    if spec.training.precision != "auto":
        return spec.training.precision != "fp32"
    if fitting:
        return fitting[0].device == "cuda"
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
