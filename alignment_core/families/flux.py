"""FLUX.1: a transformer over packed latents on a rectified flow, a CLIP for the pooled text and a T5 for the sequence.

Guidance is told to the network (dev), which was distilled to answer in one forward, or there is none (schnell). As in diffusers
`guidance_scale` is then the number that the network is told, and schnell does not hear of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.rectified_flow import RectifiedFlow
from alignment_core.families.autoencoder import decoded, encoded_in, posterior, stride_of
from alignment_core.families.encoder_fingerprint import encoder_fingerprint
from alignment_core.families.flux_configs import PATCH
from alignment_core.families.flux_keys import FLUX
from alignment_core.families.flux_load import flux_pipeline_of, load_flux_pipeline
from alignment_core.families.frozen import frozen
from alignment_core.families.keys import LoraLayers
from alignment_core.families.latents import patched_shape, starting_noise
from alignment_core.families.pretrained import fresh_scheduler
from alignment_core.families.released import Released
from alignment_core.families.remembered import Remembered
from alignment_core.families.source import ModelFolder
from alignment_core.families.tokens import all_tokens, read_tokens
from alignment_core.families.transformer_weights import load_policy, save_policy
from alignment_core.shapes import Images, Latents, Times
from alignment_core.spec.training import TRAINING_GUIDANCE

TEXT_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
FROZEN = ("vae", *TEXT_PARTS)
MOST_TOKENS = 512  # diffusers' `max_sequence_length`
TIME_SCALE = 1000  # the network is told s, and a path's times are 1000 s
GUIDANCE = "guidance"


class Flux:
    """A loaded FLUX.1 pipeline; everything but the transformer is frozen.

    `training_guidance` is what the network is told where nothing else is said: in the forwards of offline methods.
    """

    keys = FLUX

    def __init__(self, pipeline: FluxPipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.training_guidance = TRAINING_GUIDANCE
        self.vae = cast(AutoencoderKL, frozen(pipeline.vae, device))
        self.clip = cast(CLIPTextModel, frozen(pipeline.text_encoder, device))
        self.t5 = cast(T5EncoderModel, frozen(pipeline.text_encoder_2, device))
        self.clip_tokenizer = cast(CLIPTokenizer, pipeline.tokenizer)
        self.t5_tokenizer = cast(T5Tokenizer, pipeline.tokenizer_2)
        self.texts, self.images = Released((self.clip, self.t5), device), Released([self.vae], device)
        self._read = Remembered(self._read_by_both)
        self.denoiser = cast(FluxTransformer2DModel, frozen(pipeline.transformer, device))
        self.scheduler = cast(FlowMatchEulerDiscreteScheduler, pipeline.scheduler)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component
        self.path = path_of(self.scheduler, (self.resolution // (stride_of(self.vae) * PATCH)) ** 2)

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels, which its VAE says: the transformer takes any."""
        return int(self.vae.config["sample_size"])

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt that are read, by the T5: the CLIP reads fewer, for the pooled text alone."""
        return min(MOST_TOKENS, self.t5_tokenizer.model_max_length)

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"transformer": self.denoiser, "text_encoder": self.clip}

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels; `ModelError` where it cannot be packed."""
        return patched_shape(self.vae, PATCH, resolution)

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        """Identifies what posteriors depend on, for the cache."""
        return encoder_fingerprint(self.folder, ("vae",), encoded_in(self.vae, dtype), self.merged)

    def prompt_fingerprint(self) -> str:
        """Identifies what text embeddings depend on, for the cache."""
        return encoder_fingerprint(self.folder, TEXT_PARTS, [self.clip.dtype], self.merged)

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        return self.folder.model_fingerprint()

    # --- images --------------------------------------------------------------------------------------------------------

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

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        with self.images.in_use():
            return decoded(self.vae, latents)

    # --- prompts -------------------------------------------------------------------------------------------------------

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt for the T5, all of them, without the mark of the end."""
        return all_tokens(self.t5_tokenizer, prompts)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`t5_embeds` `[B, L, D]` and `pooled` `[B, D]`; prompts beyond the encoders' lengths are cut, as in diffusers."""
        return {name: value.to(self.device).float() for name, value in self._read.of(prompts).items()}

    def image_conditioning(self, frames: Float[Tensor, "batch 4"], resolution: int) -> dict[str, Tensor]:
        """Nothing: the transformer is told of places alone."""
        return {}

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser is told when it draws for these prompts, but for the guidance."""
        return self.encode_prompts(prompts)

    def encode_empty(self) -> dict[str, Tensor]:
        """The encoding of ""."""
        return self.encode_prompts([""])

    @torch.no_grad()
    def _read_by_both(self, prompts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """Each prompt by itself, so that it is the same whatever it is asked for with."""
        with self.texts.in_use():
            return {prompt: self._read_alone(prompt) for prompt in prompts}

    def _read_alone(self, prompt: str) -> dict[str, Tensor]:
        clip_tokens = read_tokens(self.clip_tokenizer, [prompt], self.clip_tokenizer.model_max_length)
        t5_tokens = read_tokens(self.t5_tokenizer, [prompt], self.max_tokens)
        return {
            "t5_embeds": self.t5(t5_tokens.to(self.device))[0][0].cpu(),
            "pooled": self.clip(clip_tokens.to(self.device)).pooler_output[0].cpu(),
        }

    def with_guidance(self, conditioning: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
        """The same, and the guidance that the network is told; a network that is not told of any does not hear of it."""
        if not self._is_told:
            return conditioning
        pooled = conditioning["pooled"]
        return {**conditioning, GUIDANCE: torch.full((len(pooled),), scale, device=pooled.device)}

    @property
    def _is_told(self) -> bool:
        return bool(self.denoiser.config["guidance_embeds"])

    # --- predictions ---------------------------------------------------------------------------------------------------

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The denoiser's velocity at `x_t`, in the precision that autocast gives it."""
        if GUIDANCE not in conditioning:
            conditioning = self.with_guidance(conditioning, self.training_guidance)
        height, width = x_t.shape[2] // PATCH, x_t.shape[3] // PATCH
        text = conditioning["t5_embeds"]
        velocity = denoiser(
            hidden_states=packed(x_t),
            timestep=times / TIME_SCALE,
            guidance=conditioning.get(GUIDANCE),
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=text,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=places(height, width).to(text),
            return_dict=False,
        )[0]
        return unpacked(velocity, height, width)

    def pipeline(self, denoiser: nn.Module) -> FluxPipeline:
        """The diffusers pipeline around `denoiser`, without text encoders: prompts come to it encoded."""
        return flux_pipeline_of(
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
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
        noise = starting_noise(shape, seeds)
        text = self.encode_prompts(prompts)
        pipeline: Any = self.pipeline(denoiser)  # its annotations know no plain tensors
        with autocast():
            output = pipeline(
                prompt_embeds=text["t5_embeds"],
                pooled_prompt_embeds=text["pooled"],
                latents=packed(noise).to(self.device),
                height=self.resolution,
                width=self.resolution,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                output_type="latent",
            )
        latents = cast(Tensor, output.images).float()
        # Outside autocast: the VAE stays float32, here as in training.
        return self.decode(unpacked(latents, shape[1] // PATCH, shape[2] // PATCH))

    # --- the policy on disk --------------------------------------------------------------------------------------------

    def save_policy(self, actors: Actors, folder: Path) -> None:
        """The LoRA as `pipeline.load_lora_weights(folder)` reads it, or a whole folder under `pipeline/`."""
        save_policy(self, FluxPipeline, actors, folder, (*FROZEN, "scheduler"))

    def load_policy(self, actors: Actors, folder: Path) -> None:
        """Put the weights that `save_policy` wrote back into the policy, exactly."""
        load_policy(actors, folder)


def packed(latents: Latents) -> Float[Tensor, "batch places values"]:
    """`[B, C, 2h, 2w]` as `[B, h w, 4C]`: each place in the order channel, row, column."""
    return nn.functional.pixel_unshuffle(latents, PATCH).flatten(2).transpose(1, 2)


def unpacked(tokens: Float[Tensor, "batch places values"], height: int, width: int) -> Latents:
    """The latents that `packed` gave."""
    return nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), PATCH)


def places(height: int, width: int) -> Float[Tensor, "places 3"]:
    """What tells places apart: nothing, row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


def path_of(scheduler: FlowMatchEulerDiscreteScheduler, num_places: int) -> RectifiedFlow:
    """The noise levels of a schedule, and the steps that it samples at for images of so many places.

    A dynamic shift is that of sampling alone: training levels are then not shifted, as in diffusers' scripts.
    """
    config = scheduler.config
    num_timesteps, shift = int(config["num_train_timesteps"]), float(config["shift"])
    if not config["use_dynamic_shifting"]:
        return RectifiedFlow(num_timesteps, shift=shift, sampling_shift=shift, spacing="even")
    least, most = float(config["base_image_seq_len"]), float(config["max_image_seq_len"])
    low, high = float(config["base_shift"]), float(config["max_shift"])
    mu = low + (high - low) * (num_places - least) / (most - least)
    return RectifiedFlow(num_timesteps, shift=1.0, sampling_shift=math.exp(mu), spacing="even")


def load_flux(
    folder: ModelFolder,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    denoiser_dtype: torch.dtype,
) -> Flux:
    """Load the FLUX.1 pipeline of a folder that has been checked, safetensors only.

    `frozen_dtype` is that of the text encoders, `denoiser_dtype` that of the transformer; the VAE stays float32, since it
    encodes once and its posterior is cached. Raises `ModelError` when its parts do not fit each other, or a weight is missing.
    """
    pipeline = load_flux_pipeline(folder, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
    return Flux(pipeline, folder, device)
