"""Stable Diffusion 1.x and 2.x: one U-Net, one CLIP text encoder, epsilon or v-prediction.

A family adapts a model to the names the methods use, so that methods stay innocent of it: the tiny demo model and
SD 1.5 go through the same code.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.families.autoencoder import decoded, encoded_in, posterior, stride_of
from alignment_core.families.encoder_fingerprint import encoder_fingerprint
from alignment_core.families.frozen import frozen
from alignment_core.families.keys import LoraLayers
from alignment_core.families.latents import latent_shape, starting_noise
from alignment_core.families.released import Released
from alignment_core.families.sd_configs import Config, latent_side
from alignment_core.families.sd_keys import SD
from alignment_core.families.sd_load import load_pipeline, pipeline_of
from alignment_core.families.sd_weights import load_policy, save_policy
from alignment_core.families.source import ModelFolder
from alignment_core.families.tokens import all_tokens, read_tokens
from alignment_core.shapes import Images, Latents, Times

TEXT_PARTS = ("text_encoder", "tokenizer")
ENCODERS = ("vae", *TEXT_PARTS)


class StableDiffusion:
    """A loaded SD pipeline; everything but the denoiser is frozen."""

    def __init__(self, pipeline: StableDiffusionPipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.vae = cast(AutoencoderKL, frozen(pipeline.vae, device))
        self.text_encoder = cast(CLIPTextModel, frozen(pipeline.text_encoder, device))
        self.tokenizer = cast(CLIPTokenizer, pipeline.tokenizer)
        self.texts, self.images = Released([self.text_encoder], device), Released([self.vae], device)
        self.denoiser = cast(UNet2DConditionModel, frozen(pipeline.unet, device))
        self.scheduler = cast(DDIMScheduler, pipeline.scheduler)
        self.path = path_of(self.scheduler, device)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt; a tokenizer that does not know its length has the text encoder's."""
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels."""
        return unet_resolution(self.folder, self.denoiser, self.vae)

    keys = SD

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"unet": self.denoiser, "text_encoder": self.text_encoder}

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels."""
        return latent_shape(self.vae, resolution)

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        """Identifies what posteriors depend on, for the cache."""
        return encoder_fingerprint(self.folder, ("vae",), encoded_in(self.vae, dtype), self.merged)

    def prompt_fingerprint(self) -> str:
        """Identifies what text embeddings depend on, for the cache."""
        return encoder_fingerprint(self.folder, TEXT_PARTS, [self.text_encoder.dtype], self.merged)

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        return self.folder.model_fingerprint()

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
        """Mean and standard deviation of the VAE posterior of images in [-1, 1], times the scaling factor, float32."""
        with self.images.in_use():
            return posterior(self.vae, pixels, self.device, dtype)

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, all of them, without the marks of start and end."""
        return all_tokens(self.tokenizer, prompts)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`{"prompt_embeds": [B, L, D]}`; prompts beyond the text encoder's length are cut, as in diffusers."""
        return self.encode_tokens(self.tokens(prompts))

    unheard = ()

    def tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`{"input_ids": [B, L]}`."""
        return {"input_ids": read_tokens(self.tokenizer, prompts, self.max_tokens)}

    def encode_tokens(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """`{"prompt_embeds": [B, L, D]}`, float32, with the text encoder's gradient."""
        with self.texts.in_use():
            return {"prompt_embeds": self.text_encoder(tokens["input_ids"].to(self.device).long())[0].float()}

    def encode_empty(self) -> dict[str, Tensor]:
        """The encoding of "", as diffusers has it."""
        return self.encode_prompts([""])

    def image_conditioning(self, frames: Float[Tensor, "batch 4"], resolution: int) -> dict[str, Tensor]:
        """Nothing: the U-Net is told the prompt alone."""
        return {}

    def drawing_conditioning(self, num: int) -> dict[str, Tensor]:
        """Nothing: the U-Net is told the prompt alone."""
        return {}

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The prompts, and nothing beside them."""
        return self.encode_prompts(prompts)

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        with self.images.in_use():
            return decoded(self.vae, latents)

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The denoiser's prediction (epsilon or v) at `x_t`, in the precision that autocast gives it."""
        return denoiser(x_t, times, encoder_hidden_states=conditioning["prompt_embeds"], return_dict=False)[0]

    def pipeline(self, denoiser: nn.Module) -> StableDiffusionPipeline:
        """The diffusers pipeline around `denoiser`, with DDIM."""
        pipeline = pipeline_of(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            denoiser=cast(UNet2DConditionModel, denoiser),
            scheduler=cast(DDIMScheduler, DDIMScheduler.from_config(self.scheduler.config)),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

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
        """One image for each (prompt, seed) by deterministic DDIM: all randomness is the seed's starting noise."""
        noise = starting_noise(self.latent_shape(self.resolution), seeds)
        pipeline = self.pipeline(denoiser)
        with autocast():
            with self.texts.in_use():
                text, empty = pipeline.encode_prompt(list(prompts), self.device, 1, guidance_scale > 1)
            output = pipeline(
                prompt_embeds=text,
                negative_prompt_embeds=empty,
                latents=noise.to(self.device),
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                output_type="latent",
            )
        # Outside autocast: the VAE stays float32, here as in training.
        return self.decode(cast(Tensor, output.images).float())  # pyright: ignore[reportAttributeAccessIssue]

    def save_policy(self, actors: Actors, folder: Path) -> None:
        """The LoRA as `pipeline.load_lora_weights(folder)` reads it and as kohya's, or a whole folder under `pipeline/`."""
        save_policy(self, actors, folder)

    def load_policy(self, actors: Actors, folder: Path) -> None:
        """Put the weights that `save_policy` wrote back into the policy, exactly."""
        load_policy(actors, folder)


def unet_resolution(folder: ModelFolder, unet: UNet2DConditionModel, vae: AutoencoderKL) -> int:
    """The image size in pixels whose latents a U-Net says are its own."""
    return latent_side(Config(folder.path / "unet", dict(unet.config))) * stride_of(vae)


def path_of(scheduler: DDIMScheduler, device: torch.device) -> DiscreteVP:
    """The noise levels of a schedule, and the grid that it samples on."""
    config = scheduler.config
    return DiscreteVP(
        config["prediction_type"],
        scheduler.alphas_cumprod.to(device),
        spacing=config["timestep_spacing"],
        offset=config["steps_offset"],
        final_abar=float(scheduler.final_alpha_cumprod),
    )


def load_sd(
    folder: ModelFolder,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    denoiser_dtype: torch.dtype,
) -> StableDiffusion:
    """Load the SD pipeline of a folder that has been checked, safetensors only.

    `frozen_dtype` is that of the text encoder, `denoiser_dtype` that of the U-Net; the VAE stays float32, since it encodes
    once and its posterior is cached. Raises `ModelError` when its parts do not fit each other, or when a weight is missing.
    """
    pipeline = load_pipeline(folder, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
    return StableDiffusion(pipeline, folder, device)
