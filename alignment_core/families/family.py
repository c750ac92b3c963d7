"""What a run needs of a model family. A family is one file: what no other module may know of it is here behind names.

Conditioning is a `dict[str, Tensor]`, `[B, ...]` each; nobody but the family knows a key.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import Denoiser
from alignment_core.diffusion import path as paths
from alignment_core.families.keys import FamilyKeys, LoraLayers
from alignment_core.families.source import ModelFolder
from alignment_core.shapes import Images, Latents, Times


@runtime_checkable
class Family(Protocol):
    """A loaded pipeline; everything but the denoiser is frozen."""

    @property
    def folder(self) -> ModelFolder: ...

    @property
    def merged(self) -> Mapping[str, LoraLayers]:
        """Of others' LoRAs into its weights, by component."""
        ...

    @merged.setter
    def merged(self, layers: Mapping[str, LoraLayers]) -> None: ...

    @property
    def path(self) -> paths.Path: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def denoiser(self) -> Denoiser:
        """The network that is trained."""
        ...

    @property
    def keys(self) -> FamilyKeys:
        """What other tools call its weights."""
        ...

    def components(self) -> Mapping[str, Any]:
        """What a LoRA may change, by the pipeline's names; the denoiser comes first."""
        ...

    @property
    def resolution(self) -> int:
        """The model's own image size in pixels."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a prompt that are read."""
        ...

    def tokenize(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens of each prompt, all of them, without the marks of start and end."""
        ...

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of `resolution` pixels."""
        ...

    def fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file."""
        ...

    def image_fingerprint(self, dtype: torch.dtype = torch.float32) -> str:
        """Identifies what posteriors depend on, for the cache: the VAE and the precision that it encodes in, not the run's nor any text encoder."""
        ...

    def prompt_fingerprint(self) -> str:
        """Identifies what the conditioning of prompts depends on, for the cache."""
        ...

    def release_encoders(self) -> None:
        """Keep the text encoders on the host from now on, but for while they read; those that are trained stay."""
        ...

    def reading(self) -> AbstractContextManager[object]:
        """Inside, released text encoders are on the device all the time, for several batches of prompts."""
        ...

    def release_vae(self) -> None:
        """Keep the VAE on the host from now on, but for while it encodes or decodes: nothing is decoded with a gradient any more."""
        ...

    def encode_images(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the VAE posterior of images `[B, 3, H, W]` in [-1, 1] as latents, float32.

        Computed in `dtype`; in a half precision they need not be finite.
        """
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What `predict` needs of the prompts; those beyond the text encoder's length are cut, as in diffusers."""
        ...

    def image_conditioning(self, frames: Tensor, resolution: int) -> dict[str, Tensor]:
        """What `predict` is told of images beside their prompts, by their frames `[B, 4]` (`datasets/transforms.py`)."""
        ...

    def sampling_conditioning(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """All that `predict` needs to draw for these prompts."""
        ...

    def encode_empty(self) -> dict[str, Tensor]:
        """The same, `[1, ...]`, of no prompt: what guidance leads away from."""
        ...

    def decode(self, latents: Latents) -> Images:
        """The images in [0, 1] of latents, float32; differentiable with respect to the latents."""
        ...

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The denoiser's prediction at `x_t`, in the precision that autocast gives it."""
        ...

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
        """One image for each (prompt, seed) by diffusers' own pipeline: all randomness is the seed's starting noise."""
        ...

    def save_policy(self, actors: Actors, folder: Path) -> None:
        """Write what was trained as the family's tools read it."""
        ...

    def load_policy(self, actors: Actors, folder: Path) -> None:
        """Put the weights that `save_policy` wrote back into the policy, exactly."""
        ...


@runtime_checkable
class ToldGuidance(Protocol):
    """A family whose guidance is told to the network, or that has none: a prediction is one forward, whatever the scale."""

    training_guidance: float
    """What is told where the conditioning says nothing: in the forwards of offline methods."""

    def with_guidance(self, conditioning: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
        """The conditioning that says the scale too."""
        ...


@runtime_checkable
class TrainableEncoders(Family, Protocol):
    """A family whose text encoders can be trained beside the denoiser: what it reads of prompts comes in two steps."""

    @property
    def unheard(self) -> tuple[str, ...]:
        """What the names of modules begin with that say nothing to the denoiser, by component: `text_encoder.encoder.layers.11.`."""
        ...

    def tokens(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the text encoders are told of the prompts, `[B, ...]`: no weight of theirs is in it."""
        ...

    def encode_tokens(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the text encoders say of it now, float32, with their gradient; `encode_prompts` without one is this of `tokens`."""
        ...

    def drawing_conditioning(self, num: int) -> dict[str, Tensor]:
        """What `predict` needs beside the prompts to draw `num` images."""
        ...
