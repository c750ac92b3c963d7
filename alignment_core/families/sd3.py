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
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.rectified_flow import RectifiedFlow
from alignment_core.families.autoencoder import decoded, encoded_in, posterior, stride_of
from alignment_core.families.encoder_fingerprint import encoder_fingerprint
from alignment_core.families.frozen import frozen
from alignment_core.families.keys import LoraLayers
from alignment_core.families.latents import patched_shape, starting_noise
from alignment_core.families.pretrained import fresh_scheduler
from alignment_core.families.released import Released
from alignment_core.families.remembered import Remembered
from alignment_core.families.sd3_keys import SD3
from alignment_core.families.sd3_load import load_sd3_pipeline, sd3_pipeline_of
from alignment_core.families.source import ModelFolder
from alignment_core.families.tokens import all_tokens, read_tokens
from alignment_core.families.transformer_weights import load_policy, save_policy
from alignment_core.shapes import Images, Latents, Times

CLIP_ENCODERS = ("text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
T5_PARTS = ("text_encoder_3", "tokenizer_3")
T5_TOKENS = 256  # diffusers' `max_sequence_length`; zeros stand for them where there is no T5


class StableDiffusion3:
    """A loaded SD 3 pipeline; everything but the transformer is frozen."""

    keys = SD3

    def __init__(self, pipeline: StableDiffusion3Pipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.vae = cast(AutoencoderKL, frozen(pipeline.vae, device))
        self.text_encoders = [
            cast(CLIPTextModelWithProjection, frozen(getattr(pipeline, n), device)) for n in CLIP_ENCODERS
        ]
        self.tokenizers = [cast(CLIPTokenizer, getattr(pipeline, name)) for name in TOKENIZERS]
        self.t5 = cast(
            T5EncoderModel | None, pipeline.text_encoder_3 and frozen(pipeline.text_encoder_3, torch.device("cpu"))
        )
        self.t5_tokenizer = cast(T5Tokenizer | None, pipeline.tokenizer_3)
        self.texts, self.images = Released(self.text_encoders, device), Released([self.vae], device)
        self.denoiser = cast(SD3Transformer2DModel, frozen(pipeline.transformer, device))
        self.scheduler = cast(FlowMatchEulerDiscreteScheduler, pipeline.scheduler)
        self.path = path_of(self.scheduler)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component
        self._t5_embeds = Remembered(self._read_by_t5)

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
        return int(self.denoiser.config["sample_size"]) * stride_of(self.vae)

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"transformer": self.denoiser, **dict(zip(CLIP_ENCODERS, self.text_encoders, strict=True))}

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels; `ModelError` where it has no patches."""
        return patched_shape(self.vae, int(self.denoiser.config["patch_size"]), resolution)

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        """Identifies what posteriors depend on, for the cache."""
        return encoder_fingerprint(self.folder, ("vae",), encoded_in(self.vae, dtype), self.merged)

    def prompt_fingerprint(self) -> str:
        """Identifies what text embeddings depend on, for the cache."""
        dtype = self.text_encoders[0].dtype
        return encoder_fingerprint(self.folder, self._text_parts(), [dtype], self.merged)

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        return self.folder.model_fingerprint()

    def _text_parts(self) -> tuple[str, ...]:
        return (*CLIP_ENCODERS, *TOKENIZERS, *(T5_PARTS if self.t5 is not None else ()))

    def release_encoders(self) -> None:
        """Keep the text encoders on the host from now on, but for while they read."""
        self.texts.release()

    def reading(self) -> AbstractContextManager[None]:
        """Inside, released text encoders are on the device all the time, for several batches of prompts."""
        return self.texts.in_use()

    def release_vae(self) -> None:
        """Keep the VAE on the host from now on, but for while it encodes or decodes."""
        self.images.release()

    def encode_images(
        self, pixels: Float[Tensor, "batch 3 height width"], dtype: torch.dtype = torch.float32
    ) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the VAE posterior of images in [-1, 1], shifted and scaled, float32."""
        self.latent_shape(pixels.shape[-1])
        with self.images.in_use():
            return posterior(self.vae, pixels, self.device, dtype)

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, all of them, without the marks of start and end."""
        return all_tokens(self.t5_tokenizer or self.tokenizers[0], prompts)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`clip_embeds` and, where there is a T5, `t5_embeds`, `[B, L, D]` each, and `pooled` `[B, D]`; cut as in diffusers."""
        pairs = zip(self.tokenizers, self.text_encoders, strict=True)
        with self.texts.in_use():
            read = [self._read_by_clip(tokenizer, encoder, prompts) for tokenizer, encoder in pairs]
        found = {
            "clip_embeds": torch.cat([hidden for hidden, _ in read], dim=-1),
            "pooled": torch.cat([pooled for _, pooled in read], dim=-1),
        }
        if self.t5 is None:
            return found
        return found | {name: value.to(self.device).float() for name, value in self._t5_embeds.of(prompts).items()}

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
        tokens = read_tokens(tokenizer, prompts, self._clip_tokens)
        read = encoder(tokens.to(self.device), output_hidden_states=True)
        return read.hidden_states[-2].float(), read.text_embeds.float()

    def _read_by_t5(self, prompts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """Each prompt by itself, so that it is the same whatever it is asked for with."""
        assert self.t5 is not None, "asked for where there is a T5"
        assert self.t5_tokenizer is not None, "checked with the T5"
        tokens = {prompt: read_tokens(self.t5_tokenizer, [prompt], T5_TOKENS) for prompt in prompts}
        return {prompt: {"t5_embeds": self.t5(ids)[0][0]} for prompt, ids in tokens.items()}

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        with self.images.in_use():
            return decoded(self.vae, latents)

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
        noise = starting_noise(self.latent_shape(self.resolution), seeds)
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
        save_policy(self, StableDiffusion3Pipeline, actors, folder, ("vae", *self._text_parts(), "scheduler"))

    def load_policy(self, actors: Actors, folder: Path) -> None:
        """Put the weights that `save_policy` wrote back into the policy, exactly."""
        load_policy(actors, folder)


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
