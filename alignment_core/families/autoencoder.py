"""The VAE of SD and SDXL: images in [-1, 1] to posteriors, and latents to images in [0, 1].

It stays float32 whatever the run's precision: it encodes once, and the VAE that SDXL was given out with overflows in half
precision (`force_upcast`).
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
    """Mean and standard deviation of the posterior of images in [-1, 1], times the scaling factor, float32."""
    (found,) = vae.encode(pixels.to(device, vae.dtype), return_dict=False)
    scale = float(vae.config["scaling_factor"])
    return found.mean.float() * scale, found.std.float() * scale


def decoded(vae: AutoencoderKL, latents: Latents) -> Images:
    """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
    scaled = latents.to(vae.dtype) / float(vae.config["scaling_factor"])
    (pixels,) = vae.decode(scaled, return_dict=False)  # pyright: ignore[reportArgumentType]  (any float tensor)
    return (pixels.float() / 2 + 0.5).clamp(0, 1)
