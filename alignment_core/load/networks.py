"""The networks of a run: the model in its precision, what it starts from, and the policy and reference made of it."""

import math
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import assert_never

import torch
from accelerate import Accelerator
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import LoraShape, full_actors, lora_actors
from alignment_core.errors import ModelError
from alignment_core.events import Event, PrecisionChosen
from alignment_core.families.family import Family, ToldGuidance, TrainableEncoders
from alignment_core.families.merge import merge
from alignment_core.families.single_file import in_a_folder
from alignment_core.families.trained_encoders import WithTrainedEncoders
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.model import load_model
from alignment_core.load.precision import DTYPES, most_exact, prediction_errors
from alignment_core.load.resolved import known
from alignment_core.load.start import StartingLora, begin_with, load_start
from alignment_core.ranks import Ranks
from alignment_core.spec import FullFineTune, JobSpec, LoraAdapter
from alignment_core.spec.families import untrained_encoders
from alignment_core.spec.places import Sources, localize
from alignment_core.spec.reference import shares_a
from alignment_core.spec.start import lora_label
from alignment_core.spec.training import Precision, trains_text_encoders
from alignment_core.training.run import precision_of


def load_networks(spec: JobSpec, sources: Sources, accelerator: Accelerator, cache_dir: Path) -> tuple[Family, Actors]:
    """The networks of a spec alone, at step 0, with the family that they belong to."""
    here = on_this_machine(spec, sources, cache_dir)
    family = _load_model(here, accelerator, cache_dir)
    return family, build_actors(spec, family, accelerator, load_starting_lora(spec, here, family))


def on_this_machine(spec: JobSpec, sources: Sources, cache_dir: Path) -> JobSpec:
    """The spec with every name in it replaced by its place, and a model in one file by the folder that it is unpacked to."""
    here = localize(spec, sources)
    return here.model_copy(update={"model": in_a_folder(here.model, cache_dir)})


def load_in_precision(
    spec: JobSpec, accelerator: Accelerator, precision: Precision | None, ranks: Ranks, cache_dir: Path
) -> Generator[Event, None, tuple[Accelerator, Family]]:
    """The model in the precision that was asked for, or in the more exact of the half ones."""
    if precision is not None and precision != precision_of(accelerator):
        accelerator = new_accelerator(spec, precision)
    family = _load_model(spec, accelerator, cache_dir)
    if spec.training.precision != "auto" or precision is not None or accelerator.device.type == "cpu":
        return accelerator, family
    errors = ranks.everywhere(lambda: prediction_errors(family))[0]  # all in the same, on whatever cards they are
    chosen = most_exact(errors)
    numbers = {half: error if math.isfinite(error) else None for half, error in errors.items()}
    yield PrecisionChosen(precision=chosen, prediction_errors=dict(numbers))
    if chosen == precision_of(accelerator):
        return accelerator, family
    del family  # before the other one takes as much memory
    accelerator = new_accelerator(spec, chosen)
    return accelerator, _load_model(spec, accelerator, cache_dir)


def _load_model(spec: JobSpec, accelerator: Accelerator, cache_dir: Path) -> Family:
    half = DTYPES[precision_of(accelerator)]
    # A full fine-tune keeps float32 master weights and leaves the rounding to autocast.
    denoiser_dtype = torch.float32 if isinstance(spec.adapter, FullFineTune) else half
    family = load_model(
        spec.model,
        device=accelerator.device,
        frozen_dtype=half,
        denoiser_dtype=denoiser_dtype,
        cache_dir=cache_dir,
    )
    if isinstance(family, ToldGuidance):
        family.training_guidance = spec.training.embedded_guidance
    return _with_trained_encoders(family) if trains_text_encoders(spec.adapter) else family


def _with_trained_encoders(family: Family) -> Family:
    if not isinstance(family, TrainableEncoders):
        raise ModelError("text_encoder_unsupported", f"adapter.text_encoder: {untrained_encoders(family.keys.family)}")
    return WithTrainedEncoders(family)


def load_starting_lora(spec: JobSpec, here: JobSpec, family: Family) -> StartingLora | None:
    """`here` is the spec as this machine finds its names; what people call the LoRA stands in the one that they wrote."""
    if here.start is None or spec.start is None:
        return None
    return load_start(here.start.resolved(), lora_label(spec.start.lora), family)


def build_actors(spec: JobSpec, family: Family, accelerator: Accelerator, start: StartingLora | None) -> Actors:
    if spec.training.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    match spec.adapter:
        case LoraAdapter(rank=rank, alpha=alpha, target_modules=targets, text_encoder=text):
            actors = lora_actors(
                family,
                family.denoiser,
                rank=rank,
                alpha=known(alpha),
                target_modules=known(targets),
                seed=spec.seed,
                autocast=lambda: accelerator.autocast(),
                text_encoders=None
                if text is None
                else LoraShape(known(text.rank), known(text.alpha), text.target_modules),
            )
            if start is not None and start.spec.mode == "train":
                begin_with(actors, start, spec.adapter)
            if shares_a(spec.reference):
                actors.freeze_a()
            return actors
        case FullFineTune():
            return full_actors(family, family.denoiser, autocast=lambda: accelerator.autocast())
        case _:
            assert_never(spec.adapter)


def hold_in_half(
    spec: JobSpec, here: JobSpec, family: Family, actors: Actors, precision: Precision, cache_dir: Path
) -> None:
    """Round weights once that a half-precision run would round in every forward; the numbers are autocast's, to the bit.

    Weights in shares are left: they are brought together, and rounded, for each block anew.
    """
    if precision == "fp32" or spec.resources.strategy != "ddp":
        return
    actors.copy_weights_in(DTYPES[precision])
    if actors.kind == "full" and not actors.reference_moves:
        actors.keep_initial_in(DTYPES[precision], lambda: _initial_weights(here, family, cache_dir))


def _initial_weights(here: JobSpec, family: Family, cache_dir: Path) -> Mapping[str, Tensor]:
    """The float32 weights of the denoiser as the run began, from its files, on the CPU."""
    cpu, exact = torch.device("cpu"), torch.float32
    again = load_model(here.model, device=cpu, frozen_dtype=exact, denoiser_dtype=exact, cache_dir=cache_dir)
    merge(again.components(), family.merged)
    return {name: weight.detach() for name, weight in again.denoiser.named_parameters()}
