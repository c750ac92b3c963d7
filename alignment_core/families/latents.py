"""The latents that a family draws: their shape, and the noise that a seed starts from."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Generator

from alignment_core.errors import ModelError
from alignment_core.families.autoencoder import stride_of
from alignment_core.shapes import Latents


def latent_shape(vae: AutoencoderKL, resolution: int) -> tuple[int, int, int]:
    """Channels, height and width of the latent of an image of `resolution` pixels."""
    side = resolution // stride_of(vae)
    return int(vae.config["latent_channels"]), side, side


def patched_shape(vae: AutoencoderKL, patch: int, resolution: int) -> tuple[int, int, int]:
    """The same for a denoiser that takes `patch` x `patch` places at a time; `ModelError` where some would be left over."""
    if resolution % (unit := stride_of(vae) * patch):
        raise ModelError("resolution_unfit", f"{resolution} pixels: the model draws multiples of {unit}")
    return latent_shape(vae, resolution)


def starting_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Latents:
    """The noise of each seed, on the CPU: the same wherever it is drawn from then on."""
    return torch.stack([torch.randn(shape, generator=Generator().manual_seed(seed)) for seed in seeds])
