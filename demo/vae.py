"""The demo model's autoencoder: 32x32 RGB to 4x8x8 latents, trained on rendered images.

Most of an image is grey background, so a plain loss learns colour last or never. Two things
mattered: an extra loss on chroma, and many small optimiser steps rather than few large ones.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from demo.captions import all_captions
from demo.renderer import render_random

CHROMA_WEIGHT = 4.0
KL_WEIGHT = 5e-4


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder of about 0.23 M parameters."""
    vae = AutoencoderKL.from_config(
        {
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [16, 32, 32],
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 2,
            "sample_size": 32,
            "mid_block_add_attention": False,
        }
    )
    assert isinstance(vae, AutoencoderKL)
    return vae


def rendered_batch(num_images: int, rng: np.random.Generator) -> Tensor:
    """Rendered images of random captions: [B, 3, 32, 32] in [0, 1]."""
    return torch.from_numpy(render_random(all_captions(), num_images, rng)[0])


def chroma(images: Tensor) -> Tensor:
    """What is left of [B, 3, H, W] without its grey: each channel minus their mean."""
    return images - images.mean(dim=1, keepdim=True)


def vae_loss(vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> Tensor:
    """L1 + MSE + 4 chroma MSE + KL, with pixels in [-1, 1]; a scalar."""
    x = images * 2 - 1
    posterior = vae.encode(x).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    noise = torch.randn(posterior.mean.shape, generator=generator)
    z = posterior.mean + posterior.std * noise
    x_hat = vae.decode(z).sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    kl = posterior.kl().mean() / z[0].numel()
    reconstruction = F.l1_loss(x_hat, x) + F.mse_loss(x_hat, x)
    return reconstruction + CHROMA_WEIGHT * F.mse_loss(chroma(x_hat), chroma(x)) + KL_WEIGHT * kl


def train_vae(
    num_steps: int, seed: int, log: Callable[[str], None], batch_size: int = 8, lr: float = 2e-3
) -> AutoencoderKL:
    """Trains an autoencoder and sets its `scaling_factor` to 1 / std of its latents."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    vae = new_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=num_steps, pct_start=0.05)
    started = time.monotonic()
    for step in range(1, num_steps + 1):
        loss = vae_loss(vae, rendered_batch(batch_size, rng), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == num_steps:
            seconds = time.monotonic() - started
            log(f"vae step {step}/{num_steps} loss {loss.item():.4f} {seconds:.0f} s")
    vae.eval()
    latents = encode_mean(vae, rendered_batch(512, rng))
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return vae


@torch.no_grad()
def encode_mean(vae: AutoencoderKL, images: Tensor, batch_size: int = 256) -> Tensor:
    """Posterior means [B, 4, h, w], not yet scaled, of images in [0, 1]."""
    means = [
        vae.encode(chunk * 2 - 1).latent_dist.mean  # pyright: ignore[reportAttributeAccessIssue]
        for chunk in images.split(batch_size)
    ]
    return torch.cat(means)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Decoded posterior means, in [0, 1]."""
    z = encode_mean(vae, images)
    decoded = vae.decode(z).sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return (decoded / 2 + 0.5).clamp(0, 1)


def psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean over the batch of 10 log10(1 / MSE) of the reconstructions, in dB."""
    mse = (reconstruct(vae, images) - images).square().mean(dim=(1, 2, 3))
    return float((-10 * mse.log10()).mean())
