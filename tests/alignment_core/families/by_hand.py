"""What losses are worked from by hand: each family's network asked as diffusers asks it, in float64, and the papers' formulas.

Nothing here goes through a family's `predict`, its path or its grid: noise levels, targets, means and deviations of steps are
those of the reference of formulas, written out once more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
import torch.nn.functional as F
from diffusers import FluxPipeline
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import lora_actors
from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.families.tiny_models import TINY

NUM_STEPS, ETA, SCALE, TRAINING_GUIDANCE = 4, 0.7, 2.0, 3.5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


@contextmanager
def wide_actors(name: str, folder: Path) -> Iterator[Actors]:
    """A tiny model with a LoRA that does something, in float64: what the library makes float32 is float64 inside."""
    source = LocalSource(path=str(TINY[name](folder)))
    family: Any = load_model(
        source, device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=torch.float32
    )
    for network in (family.vae, *family.components().values()):
        network.double()
    if isinstance(family.path, DiscreteVP):
        family.path = replace(family.path, abar=family.path.abar.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        targets = FAMILIES[name.split("_")[0]].lora_targets  # pyright: ignore[reportArgumentType]
        actors = lora_actors(
            family, family.denoiser, rank=2, alpha=2.0, target_modules=targets, seed=0, autocast=nullcontext
        )
        with torch.no_grad():
            for number, (parameter_name, parameter) in enumerate(actors.trainable().items()):
                if ".lora_B." in parameter_name:
                    parameter.copy_(0.2 * normal(*parameter.shape, seed=number))
        torch.set_default_dtype(torch.float64)  # of what is drawn
        try:
            yield actors
        finally:
            torch.set_default_dtype(torch.float32)


# --- noise -----------------------------------------------------------------------------------------------------------


class Noise(Protocol):
    """x = a x_0 + b eps, and the steps of a sampler, noisiest first."""

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and what the network is told, at the timesteps `t` of training."""
        ...

    def at_step(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same at a sampler's steps."""
        ...

    def target(self, x_0: Tensor, eps: Tensor, a: Tensor, b: Tensor) -> Tensor: ...

    def image(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor: ...

    def noise(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor: ...

    def eps_scale(self, a: Tensor) -> Tensor:
        """Squared errors in eps over those in the target (0.3)."""
        ...

    def step(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """mu and sigma `[B, 1, 1, 1]` of the step."""
        ...


@dataclass(frozen=True)
class ByDDIM:
    """2.1: abar, and the timesteps of four steps."""

    abar: Tensor
    predicts_v: bool
    timesteps: Tensor

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return over(self.abar[t].sqrt()), over((1 - self.abar[t]).sqrt()), t

    def at_step(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.at(self.timesteps[index])

    def target(self, x_0: Tensor, eps: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a * eps - b * x_0 if self.predicts_v else eps

    def image(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a * x - b * y if self.predicts_v else (x - b * y) / a

    def noise(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a * y + b * x if self.predicts_v else y

    def eps_scale(self, a: Tensor) -> Tensor:
        return a.square() if self.predicts_v else torch.ones_like(a)

    def step(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        t = self.timesteps[index]
        before = t - 1000 // NUM_STEPS
        now, then = over(self.abar[t]), over(self.abar[before.clamp(min=0)])  # the image has abar[0]
        sigma = ETA * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        a, b, _ = self.at(t)
        towards = (1 - then - sigma.square()).clamp(min=0).sqrt()
        return then.sqrt() * self.image(x, y, a, b) + towards * self.noise(x, y, a, b), sigma


@dataclass(frozen=True)
class ByFlow:
    """0.3 and 2.8: s of the thousand timesteps, and those of four steps with the image's 0 after them."""

    levels: Tensor
    steps: Tensor

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = self.levels[t]
        return over(1 - s), over(s), 1000 * s

    def at_step(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = self.steps[index]
        return over(1 - s), over(s), (1000 * s).to(torch.float32)

    def target(self, x_0: Tensor, eps: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return eps - x_0

    def image(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x - b * y

    def noise(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x + a * y

    def eps_scale(self, a: Tensor) -> Tensor:
        return a.square()

    def step(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        s, dt = over(self.steps[index]), over(self.steps[index + 1] - self.steps[index])
        left = 1 - torch.where(s == 1, self.steps[1], s)
        g_squared = ETA**2 * s / left
        mu = x * (1 + g_squared / (2 * s) * dt) + y * (1 + g_squared * (1 - s) / (2 * s)) * dt
        return mu, (g_squared * -dt).sqrt()


def shifted(u: Tensor, shift: float) -> Tensor:
    return shift * u / (1 + (shift - 1) * u)


def noise_of(name: str, family: Any) -> Noise:
    thousand = torch.arange(1, 1001, dtype=torch.float64) / 1000
    match name:
        case "sdxl" | "sdxl_v":
            leading, trailing = torch.tensor([751, 501, 251, 1]), torch.tensor([999, 749, 499, 249])
            abar = family.scheduler.alphas_cumprod.double()
            return ByDDIM(abar, name == "sdxl_v", trailing if name == "sdxl_v" else leading)
        case "sd3":
            levels = shifted(thousand, 3.0)
            steps = shifted(torch.linspace(1, float(levels[0]), NUM_STEPS, dtype=torch.float64), 3.0)
        case "flux" | "flux_schnell":
            levels, quarters = thousand, torch.tensor([1, 0.75, 0.5, 0.25], dtype=torch.float64)
            mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)  # diffusers' shift by the image's 16 places
            steps = quarters if name == "flux_schnell" else shifted(quarters, float(torch.tensor(mu).double().exp()))
        case _:
            raise ValueError(name)
    return ByFlow(levels, torch.cat([steps, steps.new_zeros(1)]))


# --- networks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A family's network, asked as diffusers' pipelines and training scripts ask it."""

    name: str
    actors: Actors

    @property
    def family(self) -> Any:
        return self.actors.family

    def says(
        self,
        x: Tensor,
        time: Tensor,
        prompts: Sequence[str],
        *,
        adapted: bool = True,
        frames: Tensor | None = None,
        guidance: float = TRAINING_GUIDANCE,
    ) -> Tensor:
        """The prediction; `frames` are of SDXL's images, whole ones of the model's size if there are none."""
        denoiser = self.family.denoiser
        text = self.family.encode_prompts(prompts)
        (denoiser.enable_adapters if adapted else denoiser.disable_adapters)()
        try:
            match self.name:
                case "sdxl" | "sdxl_v":
                    frames = torch.tensor([[16.0, 16, 0, 0]] * len(x)) if frames is None else frames
                    sizes = torch.cat([frames, torch.full((len(x), 2), 16.0)], dim=1).double()
                    added = {"text_embeds": text["pooled_prompt_embeds"], "time_ids": sizes}
                    hidden = text["prompt_embeds"]
                    return denoiser(x, time, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
                case "sd3":
                    clip = F.pad(text["clip_embeds"], (0, 4))
                    return denoiser(
                        hidden_states=x,
                        timestep=time,
                        encoder_hidden_states=torch.cat([clip, clip.new_zeros(len(x), 256, 24)], dim=1),
                        pooled_projections=text["pooled"],
                    ).sample
                case _:
                    return self._flux_says(x, time, text, guidance)
        finally:
            denoiser.enable_adapters()

    def _flux_says(self, x: Tensor, time: Tensor, text: dict[str, Tensor], guidance: float) -> Tensor:
        told = torch.full((len(x),), guidance) if self.name == "flux" else None
        packed = self.family.denoiser(
            hidden_states=FluxPipeline._pack_latents(x, len(x), 16, 8, 8),
            timestep=time / 1000,
            guidance=told,
            encoder_hidden_states=text["t5_embeds"],
            pooled_projections=text["pooled"],
            txt_ids=torch.zeros(text["t5_embeds"].shape[1], 3, dtype=torch.float64),
            img_ids=FluxPipeline._prepare_latent_image_ids(len(x), 4, 4, torch.device("cpu"), torch.float64),
        ).sample
        return FluxPipeline._unpack_latents(packed, 16, 16, 2)

    def says_guided(self, x: Tensor, time: Tensor, prompts: Sequence[str], *, adapted: bool = True) -> Tensor:
        """Guided by `SCALE`: told to FLUX.1's network, and away from no prompt in the others."""
        if self.name.startswith("flux"):
            return self.says(x, time, prompts, adapted=adapted, guidance=SCALE)
        without = self.says(x, time, [""] * len(x), adapted=adapted)
        return without + SCALE * (self.says(x, time, prompts, adapted=adapted) - without)

    def decoded(self, latents: Tensor) -> Tensor:
        vae = self.family.vae
        pixels = vae.decode(latents / vae.config["scaling_factor"] + (vae.config["shift_factor"] or 0)).sample
        return (pixels / 2 + 0.5).clamp(0, 1)
