"""How much a run does, by phase, each in the unit that a machine has a rate for; and what it leaves on disks.

A pass is a forward of one image through the denoiser, or a backward that costs as much.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.costs.compiling import num_graphs
from alignment_core.costs.layers import layers_of
from alignment_core.costs.memory import STATE, images_together, reference_bytes, trained_parameters
from alignment_core.model_files import ModelReport
from alignment_core.spec.families import FAMILIES, FamilyName
from alignment_core.spec.job import JobSpec
from alignment_core.spec.online import OnlineMethodSpec
from alignment_core.spec.training import FullFineTune

TimedPhase = Literal["loading", "caching", "compiling", "sampling", "scoring", "training", "evaluating", "saving"]
TERA = 1e12
DRIFT_FORWARDS = 2 * 160  # of the report: both models at 160 noised images


@dataclass(frozen=True)
class Work:
    """TFLOP of denoising, latent places of the VAE, bytes that are saved, and micro-batches that are launched."""

    caching_places: float
    sampling_tflop: float
    scoring_places: float
    training_tflop: float
    training_launches: float
    """Forwards and backwards of a micro-batch: a GPU waits for the CPU that launches their kernels, however small they are."""
    evaluating_tflop: float
    saving_bytes: float
    compiled_graphs: float = 0.0
    """Blocks that would be compiled; none where the spec does not ask for it."""
    compiles_anyhow: bool = False
    """Whatever it takes, and not only where it pays."""
    loads: float = 1.0
    """Models that are loaded, one after the other."""

    def of(self, phase: TimedPhase) -> float:
        """In the unit of the phase's rate."""
        match phase:
            case "loading":
                return self.loads
            case "caching":
                return self.caching_places
            case "compiling":
                return self.compiled_graphs
            case "sampling":
                return self.sampling_tflop
            case "scoring":
                return self.scoring_places
            case "training":
                return self.training_tflop
            case "evaluating":
                return self.evaluating_tflop
            case "saving":
                return self.saving_bytes


class Disk(BaseModel):
    """Bytes that a run leaves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint_bytes: int = Field(description="Of one checkpoint, with what is needed to train on.")
    checkpoints_bytes: int = Field(description="Of all that are uploaded.")
    cache_bytes: int | None = Field(description="Latents and encoded prompts on the worker; null when not known.")


def work_of(
    spec: JobSpec, model: ModelReport, family: FamilyName, *, num_examples: int | None, num_prompts: int
) -> Work | None:
    """For a resolved spec, with the examples that it trains on and the prompts that are held out; None for a model nobody has read."""
    side = spec.method.resolution or model.resolution
    if model.layers is None or side is None:
        return None
    layers = layers_of(model, family, side)
    forward = sum(layer.flops for layer in layers) / TERA
    drawn = sum(layer.flops for layer in layers_of(model, family, model.resolution or side)) / TERA
    places = (side // model.latent_stride) ** 2
    sampled, decoded = _drawn(spec, family)
    return Work(
        caching_places=float(places * _images_of_data(spec, num_examples)),
        sampling_tflop=sampled * forward / spec.resources.processes,
        scoring_places=float(decoded * places) / spec.resources.processes,
        training_tflop=_training_images(spec, family) * _passes(spec, num_examples) * forward,
        training_launches=spec.training.steps * spec.accumulation * _passes(spec, num_examples),
        evaluating_tflop=_evaluated(spec, family, num_prompts) * drawn / spec.resources.processes,
        saving_bytes=float(num_checkpoints(spec) * checkpoint_bytes(spec, model)),
        compiled_graphs=float(num_graphs(layers, has_reference=spec.method.has_reference) if _compiles(spec) else 0),
        compiles_anyhow=spec.training.compile == "on",
    )


def _compiles(spec: JobSpec) -> bool:
    return spec.training.compile != "off" and spec.resources.strategy == "ddp"


def disk_of(spec: JobSpec, model: ModelReport, family: FamilyName, *, num_examples: int | None, is_half: bool) -> Disk:
    """For a resolved spec, whose model's layers have been read."""
    each = checkpoint_bytes(spec, model)
    is_known = num_examples is not None or spec.method.data is None
    return Disk(
        checkpoint_bytes=each,
        checkpoints_bytes=each * num_checkpoints(spec),
        cache_bytes=_cache_bytes(spec, model, family, num_examples or 0, is_half=is_half) if is_known else None,
    )


def num_checkpoints(spec: JobSpec) -> int:
    """That are saved, the last step's included."""
    return -(-spec.training.steps // spec.checkpoints.every)


def checkpoint_bytes(spec: JobSpec, model: ModelReport) -> int:
    """What is trained and the optimiser's state, and a reference that moves; frozen parts are kept once beside them."""
    trained = trained_parameters(spec, model)
    moves = spec.reference.type != "frozen"
    return round(
        trained * (4 + STATE[spec.training.optimizer]) + (reference_bytes(spec, model, is_half=False) if moves else 0)
    )


def _images_of_data(spec: JobSpec, num_examples: int | None) -> int:
    return (num_examples or 0) * spec.method.images_per_example if spec.method.data is not None else 0


def _cache_bytes(spec: JobSpec, model: ModelReport, family: FamilyName, num_examples: int, *, is_half: bool) -> int:
    """Mean and deviation of each image in float32, and each prompt as the denoiser reads it."""
    side = spec.method.resolution or model.resolution or 0
    places = (side // model.latent_stride) ** 2
    latents = 2 * 4 * FAMILIES[family].latent_channels * places * _images_of_data(spec, num_examples)
    words = sum(FAMILIES[family].text_lengths[-1:])
    reads = (
        shape[1] for name, shape in (model.layers or {}).items() if name.endswith(("attn2.to_k", "context_embedder"))
    )
    return latents + num_examples * words * max(reads, default=0) * (2 if is_half else 4)


def _training_images(spec: JobSpec, family: FamilyName) -> int:
    """Of one process: those that go through the policy, each example's as often as its guidance asks."""
    method, batches = spec.method, spec.training.steps * spec.accumulation
    if not isinstance(method, OnlineMethodSpec):
        return batches * images_together(spec, family)
    return batches * spec.batch_size * method.states_per_example * _guided(method.guidance_scale, family)


def _guided(scale: float, family: FamilyName) -> int:
    """How often each image goes through the network: once more without its prompt."""
    return 2 if scale > 1 and not FAMILIES[family].embeds_guidance else 1


def _passes(spec: JobSpec, num_examples: int | None) -> float:
    """A forward; a backward, which costs two where every weight has a gradient; another forward where it is computed again."""
    backward = 2.0 if isinstance(spec.adapter, FullFineTune) else 1.0
    again = 1.0 if spec.training.gradient_checkpointing else 0.0
    return 1.0 - _kept_predictions(spec) + backward + again + _reference_passes(spec, num_examples)


def _kept_predictions(spec: JobSpec) -> float:
    """The share of micro-batches whose forward was made while they were drawn; several processes keep none."""
    method = spec.method
    keeps = isinstance(method, OnlineMethodSpec) and method.keeps_predictions and spec.resources.processes == 1
    return 1 / spec.accumulation if keeps else 0.0


def _reference_passes(spec: JobSpec, num_examples: int | None) -> float:
    """The share of examples that the reference is asked for: with remembered errors those of the first epochs."""
    if not spec.method.has_reference:
        return 0.0
    cache = spec.training.reference_cache
    if cache is None or num_examples is None:
        return 1.0
    return min(1.0, cache.draws * num_examples / (spec.training.steps * spec.examples_per_step))


def _drawn(spec: JobSpec, family: FamilyName) -> tuple[float, float]:
    """Forwards of an image while an online method draws, and images that it decodes to judge them."""
    method = spec.method
    if not isinstance(method, OnlineMethodSpec):
        return 0.0, 0.0
    turns = spec.training.steps / spec.steps_per_turn
    whole = (
        turns if method.keeps_predictions else math.ceil(turns)
    )  # all of it is drawn before its first step, or as it goes on
    trajectories = whole * method.trajectories_of_a_turn(spec.examples_per_step)
    forwards = trajectories * method.forwards_of_a_trajectory * _guided(method.guidance_scale, family)
    return forwards, trajectories * method.judged_of_a_trajectory


def _evaluated(spec: JobSpec, family: FamilyName, num_prompts: int) -> float:
    """Forwards of an image for the report, of two models, for the probes, and for how far they are apart; at the model's resolution."""
    evaluation = spec.evaluation
    if not evaluation.rewards:
        return 0.0
    images = 2 * min(num_prompts, evaluation.max_prompts) * evaluation.seeds_per_prompt
    if evaluation.every is not None:
        probes = 2 + spec.training.steps // evaluation.every  # the initial model's, and the last step's
        images += probes * min(num_prompts, evaluation.probe_prompts) * evaluation.seeds_per_prompt
    guided = _guided(evaluation.guidance_scale, family)
    return images * evaluation.num_inference_steps * guided + DRIFT_FORWARDS
