"""Model families: what is known of each before a model is read, and which of them are trained. Pure data.

The one list: the library's `match` on a family (`load/model.py`), the service's catalog and its checks read it, so that what
is offered is what loads. A family that is added is a row here with `is_served=True`, a file in `families/` and a case there.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

FamilyName = Literal["sd", "sdxl", "sd3", "flux"]
Denoiser = Literal["unet", "transformer"]


@dataclass(frozen=True)
class FamilyFacts:
    """What holds for every model of a family, and what its published models have unless their files say otherwise."""

    title: str
    pipeline_class: str
    """`_class_name` of the folder's `model_index.json`."""
    is_served: bool
    """Whether it can be trained: whether `load/model.py` has a case for it."""
    is_flow: bool
    """Whether noise is mixed in along straight lines (rectified flow), and not by a table of betas."""
    denoiser: Denoiser
    """The folder of what is trained."""
    latent_channels: int
    resolution: int
    """Pixels of the side that its published models draw."""
    lora_targets: tuple[str, ...]
    """What is trained where `adapter.target_modules` is left out: what diffusers' scripts train when they are told nothing,
    `train_text_to_image_lora.py` and `train_dreambooth_lora_sdxl.py`, `_sd3.py` (since it has `--lora_layers`; before, the first four)
    and `_flux.py`. The last two write `attn.` before the projections; without it those of `attn2` are trained too, which some
    blocks of SD 3.5 medium have."""
    text_lengths: tuple[int, ...]
    """Tokens of a prompt for each text encoder: `text_encoder`, `text_encoder_2`, and so on."""
    embeds_guidance: bool = False
    """Whether the network is told its guidance, or takes the number and does not look at it, and is asked once."""
    patch: int = 1
    """Latents in height and width that the denoiser takes together, so that an image's side is a multiple of them."""
    optional: frozenset[str] = frozenset()
    """Parts that a folder may leave out."""
    trains_encoders: bool = False
    """Whether a LoRA may change its text encoders: whether its class is one of `families/family.py`'s `TrainableEncoders`."""

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Their folders."""
        return tuple("text_encoder" + (f"_{n}" if n > 1 else "") for n in range(1, len(self.text_lengths) + 1))

    @property
    def weighed(self) -> tuple[str, ...]:
        """The folders that hold weights."""
        return (self.denoiser, "vae", *self.text_encoders)


ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
_BOTH_STREAMS = (*ATTENTION, "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")

FAMILIES = MappingProxyType[FamilyName, FamilyFacts](
    {
        "sd": FamilyFacts(
            title="Stable Diffusion 1.x and 2.x",
            pipeline_class="StableDiffusionPipeline",
            is_served=True,
            is_flow=False,
            denoiser="unet",
            latent_channels=4,
            resolution=512,
            lora_targets=ATTENTION,
            text_lengths=(77,),
            trains_encoders=True,
        ),
        "sdxl": FamilyFacts(
            title="Stable Diffusion XL",
            pipeline_class="StableDiffusionXLPipeline",
            is_served=True,
            is_flow=False,
            denoiser="unet",
            latent_channels=4,
            resolution=1024,
            lora_targets=ATTENTION,
            text_lengths=(77, 77),
            trains_encoders=True,
        ),
        "sd3": FamilyFacts(
            title="Stable Diffusion 3 and 3.5",
            pipeline_class="StableDiffusion3Pipeline",
            is_served=True,
            is_flow=True,
            denoiser="transformer",
            latent_channels=16,
            resolution=1024,
            lora_targets=_BOTH_STREAMS,
            text_lengths=(77, 77, 256),
            optional=frozenset({"text_encoder_3"}),
        ),
        "flux": FamilyFacts(
            title="FLUX.1",
            pipeline_class="FluxPipeline",
            is_served=True,
            is_flow=True,
            denoiser="transformer",
            latent_channels=16,
            resolution=1024,
            lora_targets=(*_BOTH_STREAMS, *_FEED_FORWARD),
            text_lengths=(77, 512),
            embeds_guidance=True,
            patch=2,
        ),
    }
)


def served() -> tuple[FamilyName, ...]:
    """The families that can be trained."""
    return tuple(name for name, facts in FAMILIES.items() if facts.is_served)


def family_of(pipeline_class: object) -> FamilyName | None:
    """The family whose pipelines have this class, served or not."""
    return next((name for name, facts in FAMILIES.items() if facts.pipeline_class == pipeline_class), None)


def refusal_of(pipeline_class: object) -> str | None:
    """Why a pipeline of this class is not trained; None where it is."""
    family = family_of(pipeline_class)
    if family is not None and FAMILIES[family].is_served:
        return None
    known = f"{pipeline_class!r}" + ("" if family is None else f" ({FAMILIES[family].title})")
    trained = ", ".join(f"{FAMILIES[name].pipeline_class} ({FAMILIES[name].title})" for name in served())
    return f"the pipeline is {known}, which is not trained here; expected {trained}"


def untrained_encoders(family: FamilyName) -> str:
    """What is said where somebody wants the text encoders of such a family trained."""
    trained = " and ".join(facts.title for facts in FAMILIES.values() if facts.trains_encoders)
    return f"the text encoders of {FAMILIES[family].title} are not trained here, only those of {trained}: leave it out"
