"""Stable Diffusion XL: one U-Net, two CLIP text encoders, the image's size and crop beside the prompt.

Podell et al., "SDXL", arXiv 2307.01952. The U-Net attends to the last hidden states but one of both encoders, side by side,
and is told the second one's projected embedding and six numbers of the image: height and width of its file, top and left of
its crop, height and width of what it is now (micro-conditioning, section 2.2).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from alignment_core.actors.actors import Actors
from alignment_core.families.autoencoder import decoded, encoded_in, posterior
from alignment_core.families.encoder_fingerprint import encoder_fingerprint
from alignment_core.families.frozen import frozen
from alignment_core.families.keys import LoraLayers
from alignment_core.families.latents import latent_shape, starting_noise
from alignment_core.families.released import Released
from alignment_core.families.sd import path_of, unet_resolution
from alignment_core.families.sd_weights import load_policy, save_policy
from alignment_core.families.sdxl_keys import SDXL
from alignment_core.families.sdxl_load import load_xl_pipeline, xl_pipeline_of
from alignment_core.families.source import ModelFolder
from alignment_core.families.tokens import all_tokens, read_tokens
from alignment_core.shapes import Images, Latents, Times

XL_TEXT_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
XL_ENCODERS = ("vae", *XL_TEXT_PARTS)


class StableDiffusionXL:
    """A loaded SDXL pipeline; everything but the denoiser is frozen."""

    keys = SDXL

    def __init__(self, pipeline: StableDiffusionXLPipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.vae = cast(AutoencoderKL, frozen(pipeline.vae, device))
        self.text_encoder = cast(CLIPTextModel, frozen(pipeline.text_encoder, device))
        self.text_encoder_2 = cast(CLIPTextModelWithProjection, frozen(pipeline.text_encoder_2, device))
        self.tokenizer = cast(CLIPTokenizer, pipeline.tokenizer)
        self.tokenizer_2 = cast(CLIPTokenizer, pipeline.tokenizer_2)
        self.texts = Released([self.text_encoder, self.text_encoder_2], device)
        self.images = Released([self.vae], device)
        self.denoiser = cast(UNet2DConditionModel, frozen(pipeline.unet, device))
        self.scheduler = cast(DDIMScheduler, pipeline.scheduler)
        self.path = path_of(self.scheduler, device)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component
        self.empty_is_zeros = bool(pipeline.config["force_zeros_for_empty_prompt"])

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt that both encoders read."""
        return min(_length(tokenizer, encoder) for tokenizer, encoder in self._readers)

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels."""
        return unet_resolution(self.folder, self.denoiser, self.vae)

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"unet": self.denoiser, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    @property
    def _readers(self) -> list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]:
        return [(self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)]

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels."""
        return latent_shape(self.vae, resolution)

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        """Identifies what posteriors depend on, for the cache."""
        return encoder_fingerprint(self.folder, ("vae",), encoded_in(self.vae, dtype), self.merged)

    def prompt_fingerprint(self) -> str:
        """Identifies what text embeddings depend on, for the cache."""
        settings = [self.text_encoder.dtype, f"zeros={self.empty_is_zeros}"]
        return encoder_fingerprint(self.folder, XL_TEXT_PARTS, settings, self.merged)

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
        """The tokens of each prompt, all of them, without the marks of start and end; both tokenizers give the same."""
        return all_tokens(self.tokenizer, prompts)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` `[B, L, D]` and `pooled_prompt_embeds` `[B, P]`; prompts beyond the encoders' length are cut.

        No prompt at all, "", is zeros where the pipeline wants it so (`force_zeros_for_empty_prompt`, as SDXL does).
        """
        return self.encode_tokens(self.tokens(prompts))

    @property
    def unheard(self) -> tuple[str, ...]:
        """What comes after the last hidden states but one of the first encoder, whose pooled text nobody asks for."""
        layers = [name for name, _ in self.text_encoder.named_modules() if name.endswith(".layers")]
        last = self.text_encoder.config.num_hidden_layers - 1
        return tuple(f"text_encoder.{name}.{last}." for name in layers)

    def tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and `input_ids_2` `[B, L]`; `not_empty` `[B, 1]` is 0 where there is no prompt at all, and else 1."""
        first, second = (
            read_tokens(tokenizer, prompts, _length(tokenizer, encoder)) for tokenizer, encoder in self._readers
        )
        not_empty = torch.tensor([[int(prompt != "")] for prompt in prompts])
        return {"input_ids": first, "input_ids_2": second, "not_empty": not_empty}

    def encode_tokens(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `encode_prompts`; float32, with the text encoders' gradient."""
        states, pooled = [], torch.empty(0)
        for name, (_, encoder) in zip(("input_ids", "input_ids_2"), self._readers, strict=True):
            with self.texts.in_use():
                output = encoder(tokens[name].to(self.device).long(), output_hidden_states=True)
            states.append(output.hidden_states[-2].float())
            pooled = output[0].float()  # the second encoder's is the projected embedding
        embeds = torch.cat(states, dim=-1)
        if self.empty_is_zeros:
            not_empty = tokens["not_empty"].to(embeds)
            embeds, pooled = embeds * not_empty[:, None], pooled * not_empty
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def image_conditioning(self, frames: Float[Tensor, "batch 4"], resolution: int) -> dict[str, Tensor]:
        """`time_ids` `[B, 6]`: a frame is height and width of the file, top and left of the crop.

        Whole numbers: half precision would round a side of 1023 pixels.
        """
        target = frames.new_full((len(frames), 2), resolution)
        return {"time_ids": torch.cat([frames, target], dim=1).round().long()}

    def drawing_conditioning(self, num: int) -> dict[str, Tensor]:
        """`time_ids` of images of the model's own size that nothing was cut off."""
        whole = torch.tensor([[self.resolution, self.resolution, 0, 0]] * num, dtype=torch.float32)
        return self.image_conditioning(whole.to(self.device), self.resolution)

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser is told when it draws: the prompts, and images of the model's own size that nothing was cut off."""
        return {**self.encode_prompts(prompts), **self.drawing_conditioning(len(prompts))}

    def encode_empty(self) -> dict[str, Tensor]:
        """The encoding of "": zeros, where the pipeline wants it so."""
        return self.encode_prompts([""])

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        with self.images.in_use():
            return decoded(self.vae, latents)

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The denoiser's prediction (epsilon or v) at `x_t`, in the precision that autocast gives it."""
        added = {"text_embeds": conditioning["pooled_prompt_embeds"], "time_ids": conditioning["time_ids"]}
        return denoiser(
            x_t,
            times,
            encoder_hidden_states=conditioning["prompt_embeds"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def pipeline(self, denoiser: nn.Module) -> StableDiffusionXLPipeline:
        """The diffusers pipeline around `denoiser`, with DDIM."""
        pipeline = xl_pipeline_of(
            vae=self.vae,
            text_encoders=(self.text_encoder, self.text_encoder_2),
            tokenizers=(self.tokenizer, self.tokenizer_2),
            denoiser=cast(UNet2DConditionModel, denoiser),
            scheduler=cast(DDIMScheduler, DDIMScheduler.from_config(self.scheduler.config)),
            empty_is_zeros=self.empty_is_zeros,
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
        with autocast():
            full, empty = self.encode_prompts(prompts), self.encode_prompts([""] * len(prompts))
            output = self.pipeline(denoiser)(
                **full,  # pyright: ignore[reportArgumentType]
                negative_prompt_embeds=empty["prompt_embeds"],
                negative_pooled_prompt_embeds=empty["pooled_prompt_embeds"],
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


def _length(tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> int:
    return min(tokenizer.model_max_length, encoder.config.max_position_embeddings)


def load_sdxl(
    folder: ModelFolder,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    denoiser_dtype: torch.dtype,
) -> StableDiffusionXL:
    """Load the SDXL pipeline of a folder that has been checked, safetensors only; see `sd.load_sd`."""
    pipeline = load_xl_pipeline(folder, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
    return StableDiffusionXL(pipeline, folder, device)
