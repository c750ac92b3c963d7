"""The demo model's U-Net and text encoder, trained together on latents of rendered images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from demo.captions import train_captions
from demo.renderer import render_random
from demo.text import HIDDEN_SIZE, new_text_encoder, new_tokenizer
from demo.vae import encode_mean

CAPTION_DROPOUT = 0.1
MIN_SNR_GAMMA = 5.0


def new_unet() -> UNet2DConditionModel:
    """An untrained U-Net of about 1.1 M parameters for 4x8x8 latents."""
    unet = UNet2DConditionModel.from_config(
        {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2,
            "block_out_channels": [32, 64],
            "layers_per_block": 1,
            "cross_attention_dim": HIDDEN_SIZE,
            # diffusers reads this as the number of heads: 8 and 16 of 4 dimensions each.
            "attention_head_dim": [8, 16],
            "norm_num_groups": 4,
        }
    )
    assert isinstance(unet, UNet2DConditionModel)
    return unet


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.5's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def new_pipeline(vae: AutoencoderKL, seed: int) -> StableDiffusionPipeline:
    """A whole text-to-image pipeline around `vae`, its U-Net and text encoder untrained."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=new_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=new_unet(),
        scheduler=new_scheduler(),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )


@dataclass(frozen=True)
class LatentDataset:
    """Scaled latents [N, 4, 8, 8] of rendered images with their caption's token ids [N, 16]."""

    latents: Tensor
    token_ids: Tensor
    empty_ids: Tensor  # [16], the unconditional caption


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Token ids padded to the model's length: int64 [B, 16]."""
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids


def latent_dataset(vae: AutoencoderKL, tokenizer: CLIPTokenizer, num_images: int, seed: int) -> LatentDataset:
    """Renders training captions and encodes them once, for all rounds."""
    images, captions = render_random(train_captions(), num_images, np.random.default_rng(seed))
    latents = encode_mean(vae, torch.from_numpy(images)) * vae.config["scaling_factor"]
    token_ids = tokenize(tokenizer, [caption.text for caption in captions])
    return LatentDataset(latents, token_ids, tokenize(tokenizer, [""])[0])


@dataclass(frozen=True)
class Denoiser:
    """The trained pair: epsilon prediction from noisy latents, timesteps and token ids."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel

    def parameters(self) -> list[nn.Parameter]:
        """Every trained parameter, in a fixed order."""
        return [*self.unet.parameters(), *self.text_encoder.parameters()]

    def __call__(self, x_t: Tensor, t: Tensor, token_ids: Tensor) -> Tensor:
        """The predicted noise, of the shape of `x_t`."""
        context = self.text_encoder(token_ids).last_hidden_state
        return self.unet(x_t, t, encoder_hidden_states=context).sample


def min_snr_loss(
    denoiser: Denoiser, abar: Tensor, x_0: Tensor, token_ids: Tensor, generator: torch.Generator
) -> Tensor:
    """`mean(min(snr, 5) / snr ||eps - eps_hat||^2)`: min-SNR weighting, arXiv 2303.09556."""
    t = torch.randint(len(abar), (len(x_0),), generator=generator)
    eps = torch.randn(x_0.shape, generator=generator)
    abar_t = abar[t, None, None, None]
    x_t = abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * eps
    per_example = F.mse_loss(denoiser(x_t, t, token_ids), eps, reduction="none").mean((1, 2, 3))
    snr = abar[t] / (1 - abar[t])
    return (per_example * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()


def loss_on_latents(
    pipeline: StableDiffusionPipeline, data: LatentDataset, batch_size: int = 32
) -> Callable[[torch.Generator], Tensor]:
    """The loss of a batch that the generator draws from `data`, a tenth of its captions dropped."""
    denoiser = Denoiser(pipeline.unet, pipeline.text_encoder)
    abar = pipeline.scheduler.alphas_cumprod

    def loss_of_batch(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.latents), (batch_size,), generator=generator)
        dropped = torch.rand(batch_size, 1, generator=generator) < CAPTION_DROPOUT
        token_ids = torch.where(dropped, data.empty_ids, data.token_ids[rows])
        return min_snr_loss(denoiser, abar, data.latents[rows], token_ids, generator)

    return loss_of_batch
