"""What an evaluation will cost: memory of the largest contender, seconds, and bytes that it stores; counted as those of a job's report are."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.costs.judges import parameters_of
from alignment_core.costs.layers import layers_of
from alignment_core.costs.memory import FLOAT32, GIB, HALF, drawing_bytes
from alignment_core.costs.vae import decoding_bytes
from alignment_core.costs.work import DRIFT_FORWARDS, TERA, Work
from alignment_core.model_files import ModelReport
from alignment_core.spec.candidates import CandidatesSpec, Contest
from alignment_core.spec.families import FAMILIES, FamilyName

ON_A_CPU, ON_A_GPU = 8, 32  # images at once where the spec leaves it to the run: `prove/stage.py`
# Bytes of a row of scores, and of a pixel of a picture: of flat drawings, of photographs, of noise.
ROW_BYTES, PIXEL_BYTES = (60, 120, 260), (0.05, 1.3, 3.1)
KEPT_PICTURES = 3  # with what was drawn, in the picture beside the anchor, and in the page


@dataclass(frozen=True)
class KnownModel:
    """A contender's base model, as a worker read it."""

    report: ModelReport
    family: FamilyName


class ProofMemory(BaseModel):
    """What one process allocates at its peak, with the contender in memory that needs most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_gib: float
    contender: str
    weights: float = Field(description="GiB of the denoiser, the VAE and the text encoders.")
    drawing: float = Field(description="GiB of a batch while it is denoised and decoded.")
    judges: float = Field(description="GiB of the networks that score images.")


class Bytes(BaseModel):
    """What stays in the object store, between bounds: images by what they show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int
    expected: int
    high: int


def proof_memory(
    spec: Contest, models: Sequence[KnownModel], *, images_at_once: int, is_half: bool
) -> ProofMemory | None:
    """None where nobody has read the layers of one of the models."""
    each = FLOAT32 if not is_half else HALF
    found = []
    judges = parameters_of((*spec.rewards, *([spec.prompt_following] if spec.prompt_following else []))) * FLOAT32
    for contender, one in zip(spec.contenders, models, strict=True):
        report, side = one.report, one.report.resolution
        if report.layers is None or report.num_parameters is None or side is None:
            return None
        text = sum(count for part, count in report.part_parameters.items() if part.startswith("text_encoder"))
        weights = (report.num_parameters + text) * each + report.part_parameters.get("vae", 0) * FLOAT32
        guided = 2 if spec.sampling.guidance_scale > 1 else 1
        drawing = drawing_bytes(layers_of(report, one.family, side), images_at_once * guided, is_half=is_half)
        on_a_card = spec.resources.device != "cpu"
        drawing = max(drawing, decoding_bytes(report, side, images_at_once, on_a_card=on_a_card))
        found.append((contender.name, weights, drawing))
    name, weights, drawing = max(found, key=lambda one: one[1] + one[2])
    parts = (weights, drawing, judges)
    shown = [round(size / GIB, 4) for size in (sum(parts), *parts)]
    return ProofMemory(peak_gib=shown[0], contender=name, weights=shown[1], drawing=shown[2], judges=shown[3])


def proof_work(spec: Contest, models: Sequence[KnownModel], num_prompts: int) -> Work | None:
    """Drawing and judging as a job's report does it, for every contender; None where nobody has read one of the models."""
    tflop = 0.0
    for one in models:
        if one.report.layers is None or one.report.resolution is None:
            return None
        forward = sum(layer.flops for layer in layers_of(one.report, one.family, one.report.resolution)) / TERA
        guided = 2 if spec.sampling.guidance_scale > 1 and not FAMILIES[one.family].embeds_guidance else 1
        forwards = num_prompts * spec.seeds_per_prompt * spec.sampling.num_inference_steps * guided
        tflop += (forwards + (0 if isinstance(spec, CandidatesSpec) else DRIFT_FORWARDS / 2)) * forward
    return Work(
        caching_places=0,
        sampling_tflop=0,
        scoring_places=0,
        training_tflop=0,
        training_launches=0,
        evaluating_tflop=tflop / spec.resources.processes,
        saving_bytes=0,
        loads=float(len(models)),
    )


def proof_bytes(spec: Contest, models: Sequence[KnownModel], num_prompts: int) -> Bytes | None:
    """Scores twice, with what was drawn and in `scores.parquet`; pictures of the prompts that are shown, or every candidate. None as above."""
    sides = [one.report.resolution for one in models]
    judges = len(spec.rewards) + (spec.prompt_following is not None)
    rows = 2 * len(models) * num_prompts * spec.seeds_per_prompt * judges
    pixels = sum(side * side for side in sides if side is not None) * spec.seeds_per_prompt
    pixels *= num_prompts if isinstance(spec, CandidatesSpec) else min(spec.grid_prompts, num_prompts) * KEPT_PICTURES
    if None in sides:
        return None
    low, expected, high = (
        round(rows * row + pixels * pixel) for row, pixel in zip(ROW_BYTES, PIXEL_BYTES, strict=True)
    )
    return Bytes(low=low, expected=expected, high=high)
