"""From an online method's spec to the method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, assert_never

from torch import Tensor

from alignment_core.diffusion.path import SIGMA_FLOOR, Grid
from alignment_core.errors import AlignmentError
from alignment_core.families.family import Family, ToldGuidance
from alignment_core.methods.d3po import D3PO
from alignment_core.methods.ddpo import DDPO
from alignment_core.methods.dpok import DPOK
from alignment_core.methods.tailorpo import RewardGuidance, TailorPO
from alignment_core.methods.value_network import ValueNetwork
from alignment_core.protocols import RewardModel
from alignment_core.ranks import ALONE, Ranks
from alignment_core.rollouts.known_prompts import KnownPrompts
from alignment_core.rollouts.setup import RolloutSetup
from alignment_core.spec import (
    D3POSpec,
    DDPOSpec,
    DPOKSpec,
    OnlineMethodSpec,
    TailorPOSpec,
)
from alignment_core.spec.prompts import listed

OnlineMethod = TailorPO | D3PO | DDPO | DPOK
Baseline = Literal["none", "batch", "prompt"] | ValueNetwork


def build_online(
    method: OnlineMethodSpec,
    family: Family,
    rewards: Mapping[str, RewardModel],
    *,
    batch_size: int,
    accumulation: int,
    seed: int,
    ranks: Ranks = ALONE,
) -> OnlineMethod:
    """Raises `AlignmentError` for what only the model or the rewards can tell: a step without noise, no gradient."""
    setup, cut = _setup(method, family, rewards, seed, ranks), Cut(batch_size, accumulation)
    match method:
        case TailorPOSpec():
            return _tailorpo(method, setup, rewards, cut)
        case D3POSpec():
            return _d3po(method, setup, cut)
        case DDPOSpec():
            return _ddpo(method, setup, cut)
        case DPOKSpec():
            return _dpok(method, setup, cut, _baseline(method, family, seed))
        case _:
            assert_never(method)


@dataclass(frozen=True)
class Cut:
    """How an optimiser step is cut into forwards."""

    batch_size: int
    accumulation: int


def _tailorpo(method: TailorPOSpec, setup: RolloutSetup, rewards: Mapping[str, RewardModel], cut: Cut) -> TailorPO:
    guidance = method.guidance
    if guidance is not None and not setup.rewards[0].differentiable:
        name = next(iter(rewards))
        raise AlignmentError("reward_not_differentiable", f"method.guidance needs a gradient, and {name!r} has none")
    built = TailorPO(
        setup,
        beta=method.beta,
        reduction=method.logprob_reduction,
        num_trained_steps=method.num_trained_steps,
        guidance=None
        if guidance is None
        else RewardGuidance(
            guidance.eta_min, guidance.eta_max, guidance.delta, through_network=not guidance.stop_network_grad
        ),
        ratio_clamp=method.ratio_clamp,
        batch_size=cut.batch_size,
        accumulation=cut.accumulation,
    )
    _refuse_silent_steps(setup, built.trained)
    return built


def _d3po(method: D3POSpec, setup: RolloutSetup, cut: Cut) -> D3PO:
    return D3PO(
        setup,
        beta=method.beta,
        reduction=method.logprob_reduction,
        ratio_clamp=method.ratio_clamp,
        num_prompts=method.prompts_per_iteration,
        num_trained_steps=_num_trained(method.num_trained_steps, setup),
        batch_size=cut.batch_size,
        accumulation=cut.accumulation,
    )


def _ddpo(method: DDPOSpec, setup: RolloutSetup, cut: Cut) -> DDPO:
    return DDPO(
        setup,
        ratio_clamp=method.ratio_clamp,
        advantage_clip=method.advantage_clip,
        within=method.advantage,
        num_prompts=method.prompts_per_iteration,
        num_copies=method.samples_per_prompt,
        num_trained_steps=_num_trained(method.num_trained_steps, setup),
        batch_size=cut.batch_size,
        accumulation=cut.accumulation,
    )


def _dpok(method: DPOKSpec, setup: RolloutSetup, cut: Cut, baseline: Baseline) -> DPOK:
    _refuse_silent_steps(setup, range(len(setup.grid)))
    return DPOK(
        setup,
        ratio_clamp=method.ratio_clamp,
        reward_weight=method.reward_weight,
        kl_weight=method.kl_weight,
        baseline=baseline,
        num_prompts=method.prompts_per_iteration,
        num_copies=method.samples_per_prompt,
        updates=method.updates_per_iteration,
        buffer_iterations=method.buffer_iterations,
        batch_size=cut.batch_size,
        accumulation=cut.accumulation,
    )


def _baseline(method: DPOKSpec, family: Family, seed: int) -> Baseline:
    match method.baseline:
        case "value":
            return _value_network(method, family, seed)
        case "none" | "batch" | "prompt" as baseline:
            return baseline
        case _:
            assert_never(method.baseline)


def _value_network(method: DPOKSpec, family: Family, seed: int) -> ValueNetwork:
    value = method.value_network
    assert value is not None, "the spec is resolved"
    return ValueNetwork(
        width=value.width,
        learning_rate=value.learning_rate,
        batch_size=value.batch_size,
        num_batches=value.num_batches,
        num_timesteps=family.path.num_timesteps,
        seed=seed,
    )


def _num_trained(num: int | None, setup: RolloutSetup) -> int:
    """As many steps of each trajectory as asked, or all; steps without noise cannot be trained."""
    wanted = num or len(setup.grid)
    if wanted > len(setup.grid.trainable):
        _refuse_silent_steps(setup, range(len(setup.grid)))
    return wanted


def _refuse_silent_steps(setup: RolloutSetup, trained: Sequence[int]) -> None:
    if silent := sorted(set(trained) - set(setup.grid.trainable)):
        numbers = ", ".join(str(len(setup.grid) - index) for index in silent)
        raise AlignmentError(
            "no_noise_to_train_on",
            f"method.num_trained_steps: at step {numbers}, counted down to 1, sigma is below {SIGMA_FLOOR:g}, and a step "
            "without noise has no density",
            hint="Raise method.eta, or train fewer steps.",
        )


def sampling_grid(family: Family, num_steps: int, eta: float, field: str) -> Grid:
    """The steps that sampling takes; raises `AlignmentError` that names the spec's field where there are not so many."""
    try:
        return family.path.grid(num_steps, eta)
    except ValueError as error:
        raise AlignmentError("sampling_steps_unsupported", f"{field}: {error}") from error


def _encode(family: Family, scale: float) -> Callable[[Sequence[str]], dict[str, Tensor]]:
    """How prompts are read, with the guidance said where the network is told it."""
    if not isinstance(family, ToldGuidance):
        return family.sampling_conditioning
    return lambda prompts: family.with_guidance(family.sampling_conditioning(prompts), scale)


def _setup(
    method: OnlineMethodSpec, family: Family, rewards: Mapping[str, RewardModel], seed: int, ranks: Ranks
) -> RolloutSetup:
    grid = sampling_grid(family, method.num_inference_steps, method.eta, "method.num_inference_steps")
    return RolloutSetup(
        prompts=listed(method.prompts),
        grid=grid,
        guidance_scale=1.0 if isinstance(family, ToldGuidance) else method.guidance_scale,
        latent_shape=family.latent_shape(family.resolution),
        encode=KnownPrompts(_encode(family, method.guidance_scale), family.reading, device=family.device),
        encode_empty=cache(lambda: {**family.sampling_conditioning([""]), **family.encode_empty()}),
        decode=family.decode,
        rewards=list(rewards.values()),
        seed=seed,
        ranks=ranks,
    )
