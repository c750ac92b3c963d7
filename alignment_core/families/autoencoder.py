"""The VAE that every family has: images in [-1, 1] to posteriors, and latents to images in [0, 1].

It stays float32 whatever the run's precision: it encodes once, and the VAE that SDXL was given out with overflows in half
precision (`force_upcast`). Latents are z times the scaling factor, and those of SD 3 and FLUX.1 are shifted before.
"""

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from alignment_core.shapes import Images, Latents


@torch.no_grad()
def posterior(
    vae: AutoencoderKL, pixels: Float[Tensor, "batch 3 height width"], device: torch.device
) -> tuple[Latents, Latents]:
    """Mean and standard deviation of the posterior of images in [-1, 1], (z - shift) scale, float32."""
    (found,) = vae.encode(pixels.to(device, vae.dtype), return_dict=False)
    scale, shift = _scale_and_shift(vae)
    return (found.mean.float() - shift) * scale, found.std.float() * scale


def decoded(vae: AutoencoderKL, latents: Latents) -> Images:
    """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
    scale, shift = _scale_and_shift(vae)
    z = latents.to(vae.dtype) / scale + shift
    (pixels,) = vae.decode(z, return_dict=False)  # pyright: ignore[reportArgumentType]  (any float tensor)
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def _scale_and_shift(vae: AutoencoderKL) -> tuple[float, float]:
    return float(vae.config["scaling_factor"]), float(vae.config["shift_factor"] or 0)


def stride_of(vae: AutoencoderKL) -> int:
    """Pixels that a latent's place stands for, along one side."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)
