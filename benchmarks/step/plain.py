"""The methods as the published scripts have them: what a step is measured against. Nothing of Attune is imported here.

diffusers' `train_diffusion_dpo.py` and its kin, in float32: every step decodes and transforms its images, encodes them by the
VAE and its captions by the text encoder, runs the policy and then the reference (PEFT's adapter switched off, or a full copy),
clips, and steps `torch.optim.AdamW`. Draws can be given, so that the numbers can be compared.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from benchmarks.step.plain_models import PlainModel, Text

VAE_BATCH = 8  # diffusers' vae_encode_batch_size
OF_ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
TARGETS = {
    "unet": OF_ATTENTION,
    "transformer": [*OF_ATTENTION, "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out"],
}


@dataclass(frozen=True)
class Example:
    """A row as it lies on disk: one image, or the winner and the loser, and the caption."""

    images: tuple[bytes, ...]
    caption: str


@dataclass(frozen=True)
class Draws:
    """Noise of the posterior `[images, ...]`, noise and timesteps of the path."""

    posterior: Tensor
    eps: Tensor
    timesteps: Tensor


class Plain:
    """A model, the reference and the optimiser."""

    def __init__(self, folder: Path, device: torch.device, *, resolution: int, is_full: bool) -> None:
        self.device, self.resolution, self.model = device, resolution, PlainModel(folder, device)
        self.network = self.model.denoiser
        self.reference = copy.deepcopy(self.network) if is_full else None
        if is_full:
            self.network.requires_grad_(True)
        else:
            targets = TARGETS["transformer" if self.model.kind == "sd3" else "unet"]
            config = LoraConfig(r=8, lora_alpha=8, init_lora_weights="gaussian", target_modules=targets)
            self.network.add_adapter(config)
        self.trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=1e-6, weight_decay=1e-2)

    # --- what is encoded at every step -----------------------------------------------------------------------------

    def latents(self, images: Sequence[bytes], noise: Tensor | None) -> Tensor:
        pixels = torch.stack([_pixels(image, self.resolution) for image in images]).to(self.device)
        found = []
        for start in range(0, len(pixels), VAE_BATCH):
            mean, std = self.model.posterior(pixels[start : start + VAE_BATCH])
            drawn = torch.randn_like(mean) if noise is None else noise[start : start + VAE_BATCH]
            found.append(mean + std * drawn)
        return self.model.to_latents(torch.cat(found))

    def captions(self, captions: Sequence[str]) -> Text:
        """What the denoiser is told while it draws."""
        return self.model.sized(self.model.read(captions), self.resolution, self.resolution)

    def captions_of(self, examples: Sequence[Example]) -> Text:
        """What it is told of images that lie on disk, square ones."""
        (side,) = {Image.open(BytesIO(image)).height for example in examples for image in example.images}
        return self.model.sized(self.model.read([example.caption for example in examples]), side, self.resolution)

    # --- the networks ----------------------------------------------------------------------------------------------

    def policy(self, x_t: Tensor, t: Tensor, text: Text) -> Tensor:
        return self.model.predict(self.network, x_t, t, text)

    def predict_reference(self, x_t: Tensor, t: Tensor, text: Text) -> Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return self.model.predict(self.reference, x_t, t, text)
            self.network.disable_adapters()
            try:
                return self.model.predict(self.network, x_t, t, text)
            finally:
                self.network.enable_adapters()

    # --- a step ----------------------------------------------------------------------------------------------------

    def errors(
        self, examples: Sequence[Example], draws: Draws | None, *, with_reference: bool
    ) -> tuple[Tensor, Tensor]:
        """Errors of policy and reference, `[images, B]`: winners first, then losers."""
        num = len(examples[0].images)
        images = [example.images[place] for place in range(num) for example in examples]
        x_0 = self.latents(images, None if draws is None else draws.posterior)
        shape = (len(examples), *x_0.shape[1:])
        eps = torch.randn(shape, device=self.device) if draws is None else draws.eps
        last = self.model.scheduler.config.num_train_timesteps
        t = torch.randint(0, last, (len(examples),), device=self.device) if draws is None else draws.timesteps
        eps, t = eps.repeat(num, 1, 1, 1), t.repeat(num)
        x_t, target = self.model.noisy(x_0, eps, t), self.model.target(x_0, eps)
        text = self.captions_of(examples).repeat(num)
        m = (self.policy(x_t, t, text) - target).square().mean(dim=(1, 2, 3))
        r = torch.zeros_like(m)
        if with_reference:
            r = (self.predict_reference(x_t, t, text) - target).square().mean(dim=(1, 2, 3))
        return m.reshape(num, -1), r.reshape(num, -1)

    def update(self, loss: Tensor) -> None:
        """Backward, clip, step."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _pixels(image: bytes, resolution: int) -> Tensor:
    """Shorter side to the resolution, centre crop, [-1, 1]."""
    opened = Image.open(BytesIO(image)).convert("RGB")
    side = min(opened.size)
    width, height = (length * resolution // side for length in opened.size)
    resized = opened.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    cropped = resized.crop((left, top, left + resolution, top + resolution))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float().div(127.5).sub(1)


def dpo(m: Tensor, r: Tensor, beta: float) -> Tensor:
    """Diffusion-DPO, arXiv 2311.12908."""
    inside = -0.5 * beta * ((m[0] - m[1]) - (r[0] - r[1]))
    return -F.logsigmoid(inside).mean()


def kto(m: Tensor, r: Tensor, liked: Tensor, beta: float) -> Tensor:
    """Diffusion-KTO, arXiv 2404.04465."""
    g = (r - m)[0]
    baseline = g.detach().mean().clamp(min=0)
    return (1 - torch.sigmoid(torch.where(liked, 1.0, -1.0) * beta * (g - baseline))).mean()


def mapo(m: Tensor, beta: float, kappa: float, scale: float) -> Tensor:
    """MaPO, arXiv 2406.06424."""
    w, lost = (kappa * error / torch.expm1(kappa * error) for error in m)
    return (m[0] - beta * F.logsigmoid(scale * (w - lost))).mean()
