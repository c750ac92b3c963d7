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
from torch import Generator, Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from alignment_core.actors.actors import Actors
from alignment_core.families.autoencoder import decoded, posterior
from alignment_core.families.keys import LoraLayers
from alignment_core.families.merge import fingerprint_of
from alignment_core.families.sd import path_of
from alignment_core.families.sd_configs import Config, check_vocabulary, latent_side
from alignment_core.families.sd_load import load_encoder, load_part, reading
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.sd_weights import load_policy, save_policy
from alignment_core.families.sdxl_configs import check_xl_parts
from alignment_core.families.sdxl_keys import SDXL
from alignment_core.families.source import ModelFolder, read_json
from alignment_core.shapes import Images, Latents, Times

XL_ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


class StableDiffusionXL:
    """A loaded SDXL pipeline; everything but the denoiser is frozen."""

    keys = SDXL

    def __init__(self, pipeline: StableDiffusionXLPipeline, folder: ModelFolder, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.vae = cast(AutoencoderKL, pipeline.vae).requires_grad_(False).eval()
        self.text_encoder = cast(CLIPTextModel, pipeline.text_encoder).requires_grad_(False).eval()
        self.text_encoder_2 = cast(CLIPTextModelWithProjection, pipeline.text_encoder_2).requires_grad_(False).eval()
        self.tokenizer = cast(CLIPTokenizer, pipeline.tokenizer)
        self.tokenizer_2 = cast(CLIPTokenizer, pipeline.tokenizer_2)
        self.denoiser = cast(UNet2DConditionModel, pipeline.unet).requires_grad_(False).eval()
        self.scheduler = cast(DDIMScheduler, pipeline.scheduler)
        self.path = path_of(self.scheduler, device)
        self.merged: Mapping[str, LoraLayers] = {}  # of others' LoRAs into its weights, by component
        self.vae_stride = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.empty_is_zeros = bool(pipeline.config["force_zeros_for_empty_prompt"])

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt that both encoders read."""
        return min(
            min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            for tokenizer, encoder in self._readers
        )

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels."""
        return latent_side(Config(self.folder.path / "unet", dict(self.denoiser.config))) * self.vae_stride

    def components(self) -> dict[str, nn.Module]:
        """What a LoRA may change; the denoiser comes first."""
        return {"unet": self.denoiser, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    @property
    def _readers(self) -> list[tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]]:
        return [(self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)]

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels."""
        side = resolution // self.vae_stride
        return int(self.vae.config["latent_channels"]), side, side

    def encoder_fingerprint(self) -> str:
        """Identifies what posteriors and text embeddings depend on, for the cache."""
        plain = f"{self.folder.fingerprint(XL_ENCODERS)}/{self.text_encoder.dtype}/zeros={self.empty_is_zeros}"
        if not (changed := {name: layers for name, layers in self.merged.items() if name in XL_ENCODERS}):
            return plain
        return f"{plain}-{fingerprint_of(changed)}"

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        return self.folder.fingerprint(("unet", "scheduler", *XL_ENCODERS))

    def encode_images(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the VAE posterior of images in [-1, 1], times the scaling factor, float32."""
        return posterior(self.vae, pixels, self.device)

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, all of them, without the marks of start and end; both tokenizers give the same."""
        return self.tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """`prompt_embeds` `[B, L, D]` and `pooled_prompt_embeds` `[B, P]`; prompts beyond the encoders' length are cut.

        No prompt at all, "", is zeros where the pipeline wants it so (`force_zeros_for_empty_prompt`, as SDXL does).
        """
        states, pooled = [], torch.empty(0)
        for tokenizer, encoder in self._readers:
            ids = self._token_ids(tokenizer, encoder, prompts)
            output = encoder(ids.to(self.device), output_hidden_states=True)
            states.append(output.hidden_states[-2].float())
            pooled = output[0].float()  # the second encoder's is the projected embedding
        embeds = torch.cat(states, dim=-1)
        if self.empty_is_zeros:
            not_empty = torch.tensor([prompt != "" for prompt in prompts], dtype=embeds.dtype, device=embeds.device)
            embeds, pooled = embeds * not_empty[:, None, None], pooled * not_empty[:, None]
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _token_ids(
        self, tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection, prompts: Sequence[str]
    ) -> Tensor:
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return tokens.input_ids

    def image_conditioning(self, frames: Float[Tensor, "batch 4"], resolution: int) -> dict[str, Tensor]:
        """`time_ids` `[B, 6]`: a frame is height and width of the file, top and left of the crop.

        Whole numbers: half precision would round a side of 1023 pixels.
        """
        target = frames.new_full((len(frames), 2), resolution)
        return {"time_ids": torch.cat([frames, target], dim=1).round().long()}

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser is told when it draws: the prompts, and images of the model's own size that nothing was cut off."""
        whole = torch.tensor([[self.resolution, self.resolution, 0, 0]] * len(prompts), dtype=torch.float32)
        return {**self.encode_prompts(prompts), **self.image_conditioning(whole.to(self.device), self.resolution)}

    def encode_empty(self) -> dict[str, Tensor]:
        """The encoding of "": zeros, where the pipeline wants it so."""
        return self.encode_prompts([""])

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
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
        shape = self.latent_shape(self.resolution)
        noise = torch.stack([torch.randn(shape, generator=Generator().manual_seed(seed)) for seed in seeds])
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


def xl_pipeline_of(
    *,
    vae: AutoencoderKL,
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    denoiser: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    empty_is_zeros: bool,
) -> StableDiffusionXLPipeline:
    """The diffusers pipeline of these parts."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoders[0],
        text_encoder_2=text_encoders[1],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=denoiser,
        scheduler=scheduler,  # pyright: ignore[reportArgumentType]
        force_zeros_for_empty_prompt=empty_is_zeros,
        add_watermarker=False,
    )


def load_sdxl(
    folder: ModelFolder,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    denoiser_dtype: torch.dtype,
) -> StableDiffusionXL:
    """Load the SDXL pipeline of a folder that has been checked, safetensors only; see `sd.load_sd`."""
    check_xl_parts(folder)
    scheduler = read_schedule(folder)
    with reading(folder):
        text_encoder = load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype)
        text_encoder_2 = load_encoder(folder, "text_encoder_2", CLIPTextModelWithProjection, frozen_dtype)
        tokenizers = [
            CLIPTokenizer.from_pretrained(folder.path / name, local_files_only=True)
            for name in ("tokenizer", "tokenizer_2")
        ]
        vae = load_part(folder, "vae", AutoencoderKL, torch.float32)
        unet = load_part(folder, "unet", UNet2DConditionModel, denoiser_dtype)
    for name, tokenizer, encoder in zip(
        ("text_encoder", "text_encoder_2"), tokenizers, (text_encoder, text_encoder_2), strict=True
    ):
        check_vocabulary(folder, tokenizer.get_vocab(), encoder.config.vocab_size, name)
    zeros = read_json(folder.path / "model_index.json").get("force_zeros_for_empty_prompt", True)
    pipeline = xl_pipeline_of(
        vae=vae,
        text_encoders=(text_encoder, text_encoder_2),
        tokenizers=(tokenizers[0], tokenizers[1]),
        denoiser=unet,
        scheduler=scheduler,
        empty_is_zeros=bool(zeros),
    )
    pipeline.to(device)
    return StableDiffusionXL(pipeline, folder, device)
