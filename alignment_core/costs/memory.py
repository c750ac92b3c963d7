"""GiB of one process, by component, at the phase of the run that needs most.

What is allocated; a card's context and what an allocator cannot use again come on top (`cards.RESERVED`). Of weights in shares it
is one process's share, with the blocks that are brought together.
"""

import math
from collections.abc import Mapping
from typing import Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.costs.activations import (
    Kept,
    checkpointed_elements,
    drawing_elements,
    kept_elements,
    remaking_elements,
    stream_elements,
)
from alignment_core.costs.candidates import Candidates
from alignment_core.costs.judges import judges_parameters
from alignment_core.costs.layers import Layer, layers_of
from alignment_core.costs.shares import brought_together, num_shares
from alignment_core.costs.vae import climbing_bytes, decoding_bytes, encoding_bytes
from alignment_core.model_files import ModelReport
from alignment_core.spec.families import FAMILIES, FamilyName
from alignment_core.spec.job import JobSpec
from alignment_core.spec.online import OnlineMethodSpec
from alignment_core.spec.recording import are_recorded
from alignment_core.spec.reference import (
    FrozenReference,
    HardCopyReference,
    ReferencePreset,
    drift_metric,
)
from alignment_core.spec.training import FullFineTune, LoraAdapter, trains_text_encoders

GIB = 2**30
FLOAT32, HALF = 4, 2
# Bytes of a kept number. Under autocast some are kept in float32 and some in both: SD 1.5 at 512 pixels on an H100, 2.9 with
# LoRA and 2.7 in full; SDXL and SD 3.5 medium at 1024, 2.7 and 3.0. All that is in float32 in a U-Net is remade of halves.
KEPT_FLOAT32, KEPT_HALF, REMADE_HALF = 4.08, 2.8, 2.1
STEPPED_AT_ONCE = 2**24  # fewer trained weights are, which takes their memory once more
STATE = {"adamw": 8.0, "adamw_8bit": 2.03, "adafactor": 0.02}  # bytes a trained weight
KEPT_OF_TEXT = (
    0.1  # numbers that a prompt keeps in a text encoder that is trained, a parameter: CLIP-L .09, CLIP-bigG .07
)
T5_ON_HOST = "text_encoder_3"  # of SD 3, which reads there (`families/sd3.py`)

Phase = Literal["training", "evaluating", "caching"]


class Memory(BaseModel):
    """What one process allocates at its peak."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_gib: float = Field(description="GiB that one process allocates at its peak.")
    phase: Phase = Field(description="When that is.")
    weights: float = Field(
        description="GiB of the denoiser and the adapter, and of the VAE where it stays on the device."
    )
    gradients: float
    optimizer: float
    reference: float = Field(description="GiB of copies that the reference keeps; with LoRA a frozen one has none.")
    activations: float = Field(description="GiB that the backward needs of a micro-batch.")
    vae_decode: float = Field(
        description="GiB while images are decoded, with the VAE where it is there for that alone; not at the same time as activations."
    )
    conditioning: float = Field(
        description="GiB of the text encoders, with what is kept to train them; nothing at a peak at which they have left."
    )
    judges: float = Field(
        default=0.0, description="GiB of the networks that score images, which are there from the start."
    )


def memory_of(
    spec: JobSpec, model: ModelReport, family: FamilyName, *, is_half: bool, remade: bool = True
) -> Memory | None:
    """For a resolved spec; None where the model's layers have not been read. Not `remade`: with the libraries' own forwards."""
    side = spec.method.resolution or model.resolution
    if model.layers is None or model.num_parameters is None or side is None:
        return None
    layers = layers_of(model, family, side)
    trained = trained_parameters(spec, model)
    of_trained = num_shares(spec) if isinstance(spec.adapter, FullFineTune) else 1  # an adapter is whole on each
    weights = _weights(spec, model, layers, trained, is_half=is_half)
    gradients = trained * FLOAT32 / of_trained
    optimizer = trained * STATE[spec.training.optimizer] / of_trained
    reference = reference_bytes(spec, model, is_half=is_half) / of_trained
    judges = float(judges_parameters(spec) * FLOAT32)
    activations, waiting = _activations(spec, layers, model, family, is_half=is_half, remade=remade)
    on_a_card = spec.resources.device != "cpu"
    decode = decoding_bytes(model, side, spec.evaluation.batch_size, on_a_card=on_a_card)
    encode = 0.0 if spec.is_online else encoding_bytes(model, side, spec.batch_size)
    text, text_kept = _conditioning(spec, model, family, is_half=is_half)
    vae, encoders = _staying(spec, model, text)
    # A step of one micro-batch makes its gradients as its activations go; blocks that are computed again come with them.
    buckets = gradients if gradients_in_buckets(spec) else 0.0
    training, coming = activations + text_kept, gradients - buckets
    training = (
        training + coming if spec.accumulation > 1 or spec.training.gradient_checkpointing else max(training, coming)
    )
    if spec.training.optimizer == "adamw" and trained < STEPPED_AT_ONCE:
        training = max(training, coming + gradients)
    decode += _whole_vae(model) - vae
    kept = weights + vae + encoders + optimizer + reference + judges + buckets
    moments: dict[Phase, float] = {
        "training": kept + training,
        "evaluating": kept + max(text - encoders, _sampling(spec, layers, is_half=is_half), decode),
        "caching": weights + _whole_vae(model) + judges + text + encode,
    }
    if isinstance(spec.method, OnlineMethodSpec):
        drawn = drawing_bytes(layers, images_together(spec, family), is_half=is_half)
        candidates = Candidates(
            drawing=drawn,
            decoding=decoding_bytes(model, side, spec.batch_size, on_a_card=on_a_card),
            climbing=climbing_bytes(model, side, spec.batch_size, on_a_card=on_a_card),
            backward=activations,
            waiting=waiting + text_kept,
        )
        moments["training"] = max(
            moments["training"], moments["evaluating"], kept + candidates.judged(spec.method, spec.resources.processes)
        )
    elif not spec.evaluation.rewards:
        del moments["evaluating"]
    phase = max(moments, key=lambda one: moments[one])
    read = text if phase == "caching" else encoders
    parts = (weights + vae, gradients, optimizer, reference, activations, decode, read + text_kept, judges)
    names = ("weights", "gradients", "optimizer", "reference", "activations", "vae_decode", "conditioning", "judges")
    shown = {name: _gib(part) for name, part in zip(names, parts, strict=True)}
    return Memory(peak_gib=_gib(moments[phase]), phase=phase, **shown)


def trained_parameters(spec: JobSpec, model: ModelReport) -> int:
    """Of the denoiser; those of text encoders, whose layers nobody reads, are a thousandth of it."""
    match spec.adapter:
        case LoraAdapter(target_modules=targets, rank=rank):
            return model.num_adapter_parameters(targets or (), rank) or 0
        case FullFineTune():
            return model.num_parameters or 0
        case _:
            assert_never(spec.adapter)


def gradients_in_buckets(spec: JobSpec) -> bool:
    """Whether DDP holds the gradients from the start on, in what it sends; not where they are averaged once a step (`load/run.py`)."""
    is_ddp = spec.resources.processes > 1 and spec.resources.strategy == "ddp"
    is_recorded = are_recorded(spec, on_a_card=spec.resources.device != "cpu")
    return is_ddp and spec.training.micro_batch == "given" and not is_recorded


def images_together(spec: JobSpec, family: FamilyName) -> int:
    """Images that go through the policy in one forward: both of a pair, and each twice where guidance asks without a prompt too.

    TailorPO's candidates are drawn from one state, which goes through it alone.
    """
    method = spec.method
    if not isinstance(method, OnlineMethodSpec):
        return spec.batch_size * method.images_per_example
    images = spec.batch_size * method.states_per_example
    return images * (2 if method.guidance_scale > 1 and not FAMILIES[family].embeds_guidance else 1)


def _weights(spec: JobSpec, model: ModelReport, layers: tuple[Layer, ...], trained: int, *, is_half: bool) -> float:
    """A full fine-tune keeps float32 weights, and autocast their half copies beside them."""
    denoiser = model.num_parameters or 0
    if (shares := num_shares(spec)) > 1:
        denoiser = denoiser / shares + brought_together(layers)
    if isinstance(spec.adapter, FullFineTune):
        return denoiser * (FLOAT32 + (HALF if is_half else 0))
    return denoiser * (HALF if is_half else FLOAT32) + trained * FLOAT32


def reference_bytes(spec: JobSpec, model: ModelReport, *, is_half: bool) -> float:
    """The initial model of a full fine-tune, in half precision where it never moves, and beside it what a moving reference is made of."""
    reference, is_full = spec.reference, isinstance(spec.adapter, FullFineTune)
    trained = trained_parameters(spec, model)
    if isinstance(reference, FrozenReference | ReferencePreset):
        return trained * (HALF if is_half and spec.resources.strategy == "ddp" else FLOAT32) if is_full else 0.0
    initial = trained * FLOAT32 if is_full else 0.0
    needs_initial = reference.reg_mode in ("policy_to_init", "log_only") or drift_metric(reference) is not None
    initial = 0.0 if reference.offload_initial or not needs_initial else initial
    if is_full or isinstance(reference, HardCopyReference) or reference.ref_store != "dense_delta":
        return initial + trained * FLOAT32
    return initial + sum(_adapted_sizes(spec, model).values()) * FLOAT32


def _adapted_sizes(spec: JobSpec, model: ModelReport) -> Mapping[str, int]:
    targets = spec.adapter.target_modules if isinstance(spec.adapter, LoraAdapter) else None
    return {name: math.prod((model.layers or {})[name]) for name in model.adapted(targets or ())}


def _activations(
    spec: JobSpec, layers: tuple[Layer, ...], model: ModelReport, family: FamilyName, *, is_half: bool, remade: bool
) -> tuple[float, float]:
    """While the backward goes through them, and while they wait for it."""
    adapted = frozenset(_adapted_sizes(spec, model))
    is_checkpointed = spec.training.gradient_checkpointing
    remade = remade and not is_checkpointed
    rank = spec.adapter.rank if isinstance(spec.adapter, LoraAdapter) else 0
    kept = Kept(isinstance(spec.adapter, FullFineTune), adapted, model.norms_queries, rank, remade)
    half = REMADE_HALF if remade and FAMILIES[family].denoiser == "unet" else KEPT_HALF
    images, each = images_together(spec, family), half if is_half else KEPT_FLOAT32
    if not is_checkpointed:
        beside = remaking_elements(layers, family, kept) if remade else 0
        waiting = images * each * kept_elements(layers, family, kept)
        return waiting + images * each * beside, waiting
    inputs = images * stream_elements(layers) * (HALF if is_half else FLOAT32)
    return inputs + images * each * checkpointed_elements(layers, family, kept), inputs


def _sampling(spec: JobSpec, layers: tuple[Layer, ...], *, is_half: bool) -> float:
    guided = 2 if spec.evaluation.guidance_scale > 1 else 1
    return drawing_bytes(layers, spec.evaluation.batch_size * guided, is_half=is_half)


def drawing_bytes(layers: tuple[Layer, ...], images: int, *, is_half: bool) -> float:
    """In a forward without gradients."""
    return images * drawing_elements(layers) * (HALF if is_half else FLOAT32)


def _staying(spec: JobSpec, model: ModelReport, text: float) -> tuple[float, float]:
    """Of the VAE and of the text encoders, what lies on the device while nobody uses it: on a CPU there is nowhere else to be."""
    is_host, trains_text = spec.resources.device == "cpu", trains_text_encoders(spec.adapter)
    return (
        _whole_vae(model) if is_host or spec.steps_use_vae else 0.0,
        text if is_host or trains_text else 0.0,
    )


def _whole_vae(model: ModelReport) -> float:
    return float(model.part_parameters.get("vae", 0) * FLOAT32)


def _conditioning(spec: JobSpec, model: ModelReport, family: FamilyName, *, is_half: bool) -> tuple[float, float]:
    """The text encoders, and what their backward needs where they are trained."""
    on_host = T5_ON_HOST if family == "sd3" and spec.resources.device != "cpu" else ""
    sizes = model.part_parameters.items()
    parameters = sum(count for part, count in sizes if part.startswith("text_encoder") and part != on_host)
    is_trained = trains_text_encoders(spec.adapter)
    kept = KEPT_OF_TEXT * parameters * images_together(spec, family) if is_trained else 0.0
    return float(parameters * (HALF if is_half else FLOAT32)), kept * (KEPT_HALF if is_half else KEPT_FLOAT32)


def _gib(size: float) -> float:
    return round(size / GIB, 4)
