"""Stable Diffusion 3 and 3.5: a joint transformer on a rectified flow, two CLIP text encoders and a T5 that may be left out.

The T5 stays on the CPU: it is larger than all else together, and each prompt goes through it once.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from jaxtyping import Float
from torch import Generator, Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.rectified_flow import RectifiedFlow
from alignment_core.errors import ModelError
from alignment_core.families.keys import LoraLayers
from alignment_core.families.merge import fingerprint_of
from alignment_core.families.pretrained import fresh_scheduler
from alignment_core.families.sd3_keys import SD3
from alignment_core.families.sd3_load import load_sd3_pipeline, sd3_pipeline_of
from alignment_core.families.source import ModelFolder
from alignment_core.families.transformer_weights import load_policy, save_policy
from alignment_core.shapes import Images, Latents, Times

CLIP_ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
T5_PARTS = ("text_encoder_3", "tokenizer_3")
T5_TOKENS = 256  # diffusers' `max_sequence_length`; zeros stand for them where there is no T5
MOST_REMEMBERED = 512  # prompts of the T5: some 2 MB each in half precision


class StableDiffusion3:
    """A loaded SD 3 pipeline; everything but the transformer is frozen."""

    keys = SD3

    def __init__(self, pipeline: StableDiffusion3Pipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.vae = cast(AutoencoderKL, _frozen(pipeline.vae, device))
        self.text_encoders = [
            cast(CLIPTextModelWithProjection, _frozen(getattr(pipeline, n), device)) for n in CLIP_ENCODERS
        ]
        self.tokenizers = [cast(CLIPTokenizer, getattr(pipeline, name)) for name in TOKENIZERS]
        self.t5 = cast(
            T5EncoderModel | None, pipeline.text_encoder_3 and _frozen(pipeline.text_encoder_3, torch.device("cpu"))
        )
        self.t5_tokenizer = cast(T5Tokenizer | None, pipeline.tokenizer_3)
        self.denoiser = cast(SD3Transformer2DModel, _frozen(pipeline.transformer, device))
        self.scheduler = cast(FlowMatchEulerDiscreteScheduler, pipeline.scheduler)
        self.path = path_of(self.scheduler)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component
        self.vae_stride = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self._remembered: dict[str, Tensor] = {}

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt that are read: the T5's, where there is one, since it reads further than the CLIPs."""
        return T5_TOKENS if self.t5 is not None else self._clip_tokens

    @property
    def _clip_tokens(self) -> int:
        """As in diffusers, the first CLIP's tokenizer decides for both; one that does not know its length has the encoders'."""
        lengths = [int(encoder.config.max_position_embeddings) for encoder in self.text_encoders]
        return min(self.tokenizers[0].model_max_length, *lengths)

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels."""
        return int(self.denoiser.config["sample_size"]) * self.vae_stride

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"transformer": self.denoiser, **dict(zip(CLIP_ENCODERS, self.text_encoders, strict=True))}

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels; `ModelError` where it has no patches."""
        unit = self.vae_stride * int(self.denoiser.config["patch_size"])
        if resolution % unit:
            raise ModelError("resolution_unfit", f"{resolution} pixels: the model draws multiples of {unit}")
        side = resolution // self.vae_stride
        return int(self.vae.config["latent_channels"]), side, side

    def encoder_fingerprint(self) -> str:
        """Identifies what posteriors and text embeddings depend on, for the cache."""
        parts = self._frozen_parts()
        plain = f"{self.folder.fingerprint(parts)}/{self.text_encoders[0].dtype}"
        if not (changed := {name: layers for name, layers in self.merged.items() if name in parts}):
            return plain
        return f"{plain}-{fingerprint_of(changed)}"

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        return self.folder.fingerprint(("transformer", "scheduler", *self._frozen_parts()))

    def _frozen_parts(self) -> tuple[str, ...]:
        return ("vae", *CLIP_ENCODERS, *TOKENIZERS, *(T5_PARTS if self.t5 is not None else ()))

    @torch.no_grad()
    def encode_images(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the VAE posterior of images in [-1, 1], shifted and scaled, float32."""
        self.latent_shape(pixels.shape[-1])
        (posterior,) = self.vae.encode(pixels.to(self.device, self.vae.dtype), return_dict=False)
        scale, shift = self._scale_and_shift
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale

    @property
    def _scale_and_shift(self) -> tuple[float, float]:
        return float(self.vae.config["scaling_factor"]), float(self.vae.config["shift_factor"])

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, all of them, without the marks of start and end."""
        tokenizer = self.tokenizers[0] if self.t5_tokenizer is None else self.t5_tokenizer
        return tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`clip_embeds` and, where there is a T5, `t5_embeds`, `[B, L, D]` each, and `pooled` `[B, D]`; cut as in diffusers."""
        pairs = zip(self.tokenizers, self.text_encoders, strict=True)
        read = [self._read_by_clip(tokenizer, encoder, prompts) for tokenizer, encoder in pairs]
        found = {
            "clip_embeds": torch.cat([hidden for hidden, _ in read], dim=-1),
            "pooled": torch.cat([pooled for _, pooled in read], dim=-1),
        }
        return found if self.t5 is None else {**found, "t5_embeds": self._read_by_t5(prompts)}

    def image_conditioning(self, frames: Float[Tensor, "batch 4"], resolution: int) -> dict[str, Tensor]:
        """Nothing: the transformer is told the prompt alone."""
        return {}

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser is told when it draws for these prompts."""
        return self.encode_prompts(prompts)

    def encode_empty(self) -> dict[str, Tensor]:
        """The encoding of "", as diffusers has it."""
        return self.encode_prompts([""])

    def _read_by_clip(
        self, tokenizer: CLIPTokenizer, encoder: CLIPTextModelWithProjection, prompts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """The layer before the last, and the projection."""
        tokens = tokenizer(
            list(prompts), padding="max_length", max_length=self._clip_tokens, truncation=True, return_tensors="pt"
        )
        read = encoder(tokens.input_ids.to(self.device), output_hidden_states=True)
        return read.hidden_states[-2].float(), read.text_embeds.float()

    def _read_by_t5(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([self._remember_t5(prompt) for prompt in prompts]).to(self.device).float()

    def _remember_t5(self, prompt: str) -> Tensor:
        """Of one prompt by itself, so that it is the same whatever it is asked for with."""
        if prompt not in self._remembered:
            if len(self._remembered) == MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[prompt] = self._t5_embeds(prompt)
        return self._remembered[prompt]

    def _t5_embeds(self, prompt: str) -> Tensor:
        assert self.t5 is not None, "asked for where there is a T5"
        assert self.t5_tokenizer is not None, "checked with the T5"
        tokens = self.t5_tokenizer(
            prompt, padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt"
        )
        return self.t5(tokens.input_ids)[0][0]

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        scale, shift = self._scale_and_shift
        z = latents.to(self.vae.dtype) / scale + shift
        (pixels,) = self.vae.decode(z, return_dict=False)  # pyright: ignore[reportArgumentType]  (any float tensor)
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The denoiser's velocity at `x_t`, in the precision that autocast gives it."""
        return denoiser(
            hidden_states=x_t,
            timestep=times,
            encoder_hidden_states=self._joined_text(conditioning),
            pooled_projections=conditioning["pooled"],
            return_dict=False,
        )[0]

    def _joined_text(self, conditioning: dict[str, Tensor]) -> Tensor:
        """What the CLIPs read, filled up to the T5's width, and after it what the T5 read, or as many zeros."""
        clip, width = conditioning["clip_embeds"], int(self.denoiser.config["joint_attention_dim"])
        clip = F.pad(clip, (0, width - clip.shape[-1]))
        t5 = conditioning.get("t5_embeds", clip.new_zeros(len(clip), T5_TOKENS, width))
        return torch.cat([clip, t5], dim=1)

    def pipeline(self, denoiser: nn.Module) -> StableDiffusion3Pipeline:
        """The diffusers pipeline around `denoiser`, without a T5: prompts come to it encoded."""
        return sd3_pipeline_of(
            vae=self.vae,
            text_encoder=self.text_encoders[0],
            tokenizer=self.tokenizers[0],
            text_encoder_2=self.text_encoders[1],
            tokenizer_2=self.tokenizers[1],
            text_encoder_3=None,
            tokenizer_3=None,
            transformer=denoiser,
            scheduler=fresh_scheduler(self.scheduler),
        )

    @torch.no_grad()
    def sample(
        self,
        denoiser: nn.Module,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> Images:
        """One image for each (prompt, seed) by Euler's method: all randomness is the seed's starting noise."""
        shape = self.latent_shape(self.resolution)
        noise = torch.stack([torch.randn(shape, generator=Generator().manual_seed(seed)) for seed in seeds])
        text, empty = self.encode_prompts(prompts), self.encode_empty()
        inputs: dict[str, Any] = {
            "prompt_embeds": self._joined_text(text),
            "pooled_prompt_embeds": text["pooled"],
            "negative_prompt_embeds": self._joined_text(empty).repeat(len(prompts), 1, 1),
            "negative_pooled_prompt_embeds": empty["pooled"].repeat(len(prompts), 1),
            "latents": noise.to(self.device),
        }
        with autocast():
            output = self.pipeline(denoiser)(
                **inputs,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                output_type="latent",
            )
        # Outside autocast: the VAE stays float32, here as in training.
        return self.decode(cast(Tensor, output.images).float())  # pyright: ignore[reportAttributeAccessIssue]

    def save_policy(self, actors: Actors, folder: Path) -> None:
        """The LoRA as `pipeline.load_lora_weights(folder)` reads it, or a whole folder under `pipeline/`."""
        save_policy(self, StableDiffusion3Pipeline, actors, folder, (*self._frozen_parts(), "scheduler"))

    def load_policy(self, actors: Actors, folder: Path) -> None:
        """Put the weights that `save_policy` wrote back into the policy, exactly."""
        load_policy(actors, folder)


def _frozen(module: nn.Module, device: torch.device) -> nn.Module:
    return module.requires_grad_(False).eval().to(device)


def path_of(scheduler: FlowMatchEulerDiscreteScheduler) -> RectifiedFlow:
    """The noise levels of a schedule, and the steps that it samples at."""
    config = scheduler.config
    shift = float(config["shift"])
    return RectifiedFlow(int(config["num_train_timesteps"]), shift=shift, sampling_shift=shift)


def load_sd3(
    folder: ModelFolder, *, device: torch.device, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusion3:
    """Load the SD 3 pipeline of a folder that has been checked, safetensors only.

    `frozen_dtype` is that of the text encoders, `denoiser_dtype` that of the transformer; the VAE stays float32, since it
    encodes once and its posterior is cached. Raises `ModelError` when its parts do not fit each other, or a weight is missing.
    """
    pipeline = load_sd3_pipeline(folder, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
    return StableDiffusion3(pipeline, folder, device)
