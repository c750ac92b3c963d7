"""The VAE that every family has: images in [-1, 1] to posteriors, and latents to images in [0, 1].

Its weights stay float32 whatever the run's precision: the VAE that SDXL was given out with overflows in half precision (`force_upcast`). To
encode in half, those of the encoder are rounded for as long as a slice takes. Latents are z times the scaling factor, and those of SD 3 and FLUX.1 are shifted before.

Batches are cut into slices of so many latent places, since a place takes 0.5 MiB while it is decoded (2.2 GiB an image of 512 pixels): what a
batch takes does not grow with it, and small images still go together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment_core.shapes import Images, Latents

PLACES_DECODED = 2 * 64 * 64  # two images of 512 pixels
PLACES_ENCODED = 8 * 64 * 64  # which takes a quarter of the memory


@torch.no_grad()
def posterior(
    vae: AutoencoderKL,
    pixels: Float[Tensor, "batch 3 height width"],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Latents, Latents]:
    """Mean and standard deviation of the posterior of images in [-1, 1], (z - shift) scale, float32, computed in `dtype`."""
    scale, shift = _scale_and_shift(vae)

    def encoded(images: Tensor) -> tuple[Tensor, Tensor]:
        with _encoder_in(dtype, vae):
            (found,) = vae.encode(images.to(device, dtype), return_dict=False)
        found = DiagonalGaussianDistribution(found.parameters.float())  # whose exponential would round once more
        return found.mean, found.std

    places = pixels.shape[-2] * pixels.shape[-1] // stride_of(vae) ** 2
    means, stds = zip(*map(encoded, slices(pixels, places, PLACES_ENCODED)), strict=True)
    return (torch.cat(means) - shift) * scale, torch.cat(stds) * scale


def encoded_in(vae: AutoencoderKL, dtype: torch.dtype) -> list[torch.dtype]:
    """What posteriors depend on beside the weights, as far as `posterior` decides it."""
    return [vae.dtype] if dtype == vae.dtype else [vae.dtype, dtype]


@contextmanager
def _encoder_in(dtype: torch.dtype, vae: AutoencoderKL) -> Iterator[None]:
    """Inside, what encodes has its weights in `dtype`; a tenth of a gibibyte is rounded, which takes no time beside the images."""
    parts = [part for part in (vae.encoder, vae.quant_conv) if isinstance(part, nn.Module)]
    kept = [(weight, weight.data) for part in parts for weight in part.parameters()]
    try:
        for weight, own in kept:
            weight.data = own.to(dtype)
        yield
    finally:
        for weight, own in kept:
            weight.data = own


def decoded(vae: AutoencoderKL, latents: Latents) -> Images:
    """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
    scale, shift = _scale_and_shift(vae)

    def images(z: Tensor) -> Tensor:
        (pixels,) = vae.decode(z, return_dict=False)  # pyright: ignore[reportArgumentType]  (any float tensor)
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    z = latents.to(vae.dtype) / scale + shift
    parts = slices(z, z.shape[-2] * z.shape[-1], PLACES_DECODED)
    return torch.cat([_forgetting(images, part) if len(parts) > 1 else images(part) for part in parts])


def slices(batch: Tensor, places: int, most: int) -> tuple[Tensor, ...]:
    """The batch in parts of at most `most` latent places, `places` an image; an image is never cut."""
    return batch.split(max(1, most // places))


def _forgetting(images: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`images(z)`, which with gradients is computed again on the way back: a part's activations are held one at a time."""
    if not (torch.is_grad_enabled() and z.requires_grad):
        return images(z)
    found = checkpoint(images, z, use_reentrant=False)
    assert isinstance(found, Tensor)
    return found


def _scale_and_shift(vae: AutoencoderKL) -> tuple[float, float]:
    return float(vae.config["scaling_factor"]), float(vae.config["shift_factor"] or 0)


def stride_of(vae: AutoencoderKL) -> int:
    """Pixels that a latent's place stands for, along one side."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)
