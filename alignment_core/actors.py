"""Policy, reference and initial denoiser over one set of base weights.

With LoRA the base weights are held once: adapter on is the policy, adapter off is the initial model, which is also the
frozen reference. With a full fine-tune the initial model is a frozen copy. Only this module knows how weights are shared.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, runtime_checkable

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from peft import LoraConfig
from torch import Tensor, nn

from alignment_core.diffusion import PredictionType
from alignment_core.errors import ModelError
from alignment_core.protocols import Latents, Timesteps
from alignment_core.seeds import seed_of

ADAPTER = "default"


@runtime_checkable
class DenoiserFamily(Protocol):
    """What actors and methods need to know of a model family."""

    prediction_type: PredictionType
    abar: Float[Tensor, " N"]
    device: torch.device

    def predict(
        self, denoiser: nn.Module, x_t: Latents, timesteps: Timesteps, conditioning: dict[str, Tensor]
    ) -> Latents: ...


class Actors:
    """The networks of a run. All stay in eval mode, so that dropout can never tell policy and reference apart."""

    def __init__(
        self,
        family: DenoiserFamily,
        denoiser: UNet2DConditionModel,
        *,
        initial_copy: UNet2DConditionModel | None,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.family = family
        self.denoiser = denoiser
        self.trained: nn.Module = denoiser  # becomes the distributed wrapper, when there is one
        self._initial_copy = initial_copy
        self._autocast = autocast

    @property
    def kind(self) -> Literal["lora", "full"]:
        """`lora` or `full`."""
        return "lora" if self._initial_copy is None else "full"

    def trainable(self) -> dict[str, nn.Parameter]:
        """The policy's trainable parameters by name, in a fixed order."""
        return {name: parameter for name, parameter in self.denoiser.named_parameters() if parameter.requires_grad}

    def predict_policy(self, x_t: Latents, timesteps: Timesteps, conditioning: dict[str, Tensor]) -> Latents:
        """The policy's prediction, with gradients, float32."""
        with self._autocast():
            return self.family.predict(self.trained, x_t, timesteps, conditioning).float()

    def predict_reference(self, x_t: Latents, timesteps: Timesteps, conditioning: dict[str, Tensor]) -> Latents:
        """The reference's prediction, without gradients, float32."""
        return self.predict_initial(x_t, timesteps, conditioning)

    @torch.no_grad()
    def predict_initial(self, x_t: Latents, timesteps: Timesteps, conditioning: dict[str, Tensor]) -> Latents:
        """The initial model's prediction, without gradients, float32."""
        with self.initial_denoiser() as denoiser, self._autocast():
            return self.family.predict(denoiser, x_t, timesteps, conditioning).float()

    @contextmanager
    def initial_denoiser(self) -> Iterator[UNet2DConditionModel]:
        """The model the run started from; with LoRA the adapter is off inside and on again after, whatever happens."""
        if self._initial_copy is not None:
            yield self._initial_copy
            return
        self.denoiser.disable_adapters()
        try:
            yield self.denoiser
        finally:
            self.denoiser.enable_adapters()


def lora_actors(
    family: DenoiserFamily,
    denoiser: UNet2DConditionModel,
    *,
    rank: int,
    alpha: float,
    target_modules: tuple[str, ...],
    seed: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Actors:
    """Add a LoRA adapter (A gaussian, B zero, float32) to `denoiser`; at step 0 policy and reference agree bit for bit."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  (peft takes floats)
        target_modules=list(target_modules),
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "lora"))
        try:
            denoiser.add_adapter(config, adapter_name=ADAPTER)
        except ValueError as error:
            raise ModelError("adapter_target_missing", f"adapter.target_modules: {error}") from error
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Actors(family, denoiser.eval(), initial_copy=None, autocast=autocast)


def full_actors(
    family: DenoiserFamily, denoiser: UNet2DConditionModel, *, autocast: Callable[[], AbstractContextManager[object]]
) -> Actors:
    """Train every weight of `denoiser` (float32); a frozen copy in the same precision is the reference.

    The copy is not stored in half precision: rounding would make policy and reference differ before the first step.
    """
    initial = copy.deepcopy(denoiser).requires_grad_(False).eval()
    return Actors(family, denoiser.requires_grad_(True).eval(), initial_copy=initial, autocast=autocast)
