"""A family whose text encoders are trained too: what its denoiser is told of a prompt is the prompt's tokens.

Everything else is the family's own. The network that is trained reads the tokens itself (`ReadingNetwork`), at every use.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import Part, ReadingNetwork
from alignment_core.diffusion import path as paths
from alignment_core.families.family import TrainableEncoders
from alignment_core.families.keys import FamilyKeys, LoraLayers
from alignment_core.families.source import ModelFolder
from alignment_core.shapes import Images, Latents, Times


class WithTrainedEncoders:
    """`Family` of a model with all its text encoders in the network that is trained."""

    def __init__(self, family: TrainableEncoders) -> None:
        self.family = family
        self.denoiser = ReadingNetwork(
            cast(Mapping[str, Part], family.components()),
            read=lambda conditioning: {**conditioning, **family.encode_tokens(conditioning)},
            predict=family.predict,
            unheard=family.unheard,
        )

    @property
    def folder(self) -> ModelFolder:
        return self.family.folder

    @property
    def merged(self) -> Mapping[str, LoraLayers]:
        return self.family.merged

    @merged.setter
    def merged(self, layers: Mapping[str, LoraLayers]) -> None:
        self.family.merged = layers

    @property
    def path(self) -> paths.Path:
        return self.family.path

    @property
    def device(self) -> torch.device:
        return self.family.device

    @property
    def keys(self) -> FamilyKeys:
        return self.family.keys

    @property
    def resolution(self) -> int:
        return self.family.resolution

    @property
    def max_tokens(self) -> int:
        return self.family.max_tokens

    def components(self) -> Mapping[str, nn.Module]:
        return self.family.components()

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        return self.family.tokenize(prompts)

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        return self.family.latent_shape(resolution)

    def fingerprint(self) -> str:
        return self.family.fingerprint()

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        return self.family.image_fingerprint(dtype)

    def prompt_fingerprint(self) -> str:
        """Another than the family's own: the cache holds tokens."""
        return f"{self.family.prompt_fingerprint()}/tokens"

    def release_encoders(self) -> None:
        """They are trained, and stay."""

    def reading(self) -> AbstractContextManager[object]:
        """They are there."""
        return nullcontext()

    def release_vae(self) -> None:
        self.family.release_vae()

    def encode_images(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Latents, Latents]:
        return self.family.encode_images(pixels, dtype)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The prompts' tokens, which the network reads."""
        return {name: value.to(self.device) for name, value in self.family.tokens(prompts).items()}

    def encode_empty(self) -> dict[str, Tensor]:
        return self.encode_prompts([""])

    def image_conditioning(self, frames: Tensor, resolution: int) -> dict[str, Tensor]:
        return self.family.image_conditioning(frames, resolution)

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {**self.encode_prompts(prompts), **self.family.drawing_conditioning(len(prompts))}

    def decode(self, latents: Latents) -> Images:
        return self.family.decode(latents)

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The prediction for prompts that `denoiser`, the network that is trained, reads as its adapters are now."""
        return denoiser(x_t, times, conditioning)

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
        """By diffusers' own pipeline, whose text encoders have the adapters that the network has now."""
        assert denoiser is self.denoiser, "text encoders go with their own denoiser"
        return self.family.sample(
            self.denoiser.denoiser,
            prompts,
            seeds,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            autocast=autocast,
        )

    def save_policy(self, actors: Actors, folder: Path) -> None:
        self.family.save_policy(actors, folder)

    def load_policy(self, actors: Actors, folder: Path) -> None:
        self.family.load_policy(actors, folder)
