"""Which plug-ins fit which method, by what the method's spec says of itself. Pure data."""

from typing import assert_never

from alignment_core.spec.base import misfit
from alignment_core.spec.method import MethodBase, Signal
from alignment_core.spec.online import OnlineMethodSpec
from alignment_core.spec.reference import (
    FrozenReference,
    MovingReferenceSpec,
    ReferenceSpec,
    drift_metric,
    resolve_reference,
)
from alignment_core.spec.timesteps import (
    ConstantScale,
    TableSampler,
    TimestepSpec,
    UniformTimesteps,
    VarianceWeight,
    resolve_timesteps,
)
from alignment_core.spec.training import ResourceSpec, Strategy, TrainingSpec


def refuse_unfit_timesteps(method: MethodBase, timesteps: TimestepSpec) -> None:
    """lambda(t) needs a place in the loss, and weights that watch a margin against the initial model need one."""
    chosen = resolve_timesteps(timesteps, reference_is_copied=False)
    if isinstance(chosen, UniformTimesteps):
        return
    if not method.takes_reward_scale and chosen.reward_scale != ConstantScale():
        raise misfit(
            f"timesteps.reward_scale multiplies a preference logit, and {_name(method)} has none: give it a sampler or a "
            "loss_weight",
            "timesteps.reward_scale",
            "timesteps",
        )
    weight = chosen.loss_weight
    watches_initial = isinstance(weight, VarianceWeight) and weight.stat_against == "initial"
    if watches_initial and (method.signal == "advantage" or not method.has_reference):
        raise misfit(
            f"timesteps.loss_weight.stat_against must be reference for {_name(method)}: its {_measure(method.signal)} measured "
            "against no model",
            "timesteps.loss_weight.stat_against",
        )


def _measure(signal: Signal) -> str:
    match signal:
        case "margin":
            return "margin is"
        case "advantage":
            return "signal is the advantage, which is"
        case _:
            assert_never(signal)


def refuse_short_table(method: OnlineMethodSpec, timesteps: TimestepSpec, examples_per_step: int) -> None:
    """Samplers of online methods choose among the steps of trajectories, which must be enough."""
    chosen = resolve_timesteps(timesteps, reference_is_copied=False)
    if isinstance(chosen, UniformTimesteps) or not isinstance(chosen.sampler, TableSampler):
        return
    total, bins = method.num_inference_steps, len(chosen.sampler.probabilities)
    if bins > total:
        raise misfit(
            f"timesteps.num_bins ({bins}) is larger than method.num_inference_steps ({total}), and the sampler of "
            f"{method.type} draws from those",
            "timesteps.num_bins",
            "timesteps.sampler",
        )
    num_wanted = sum(probability > 0 for probability in chosen.sampler.over_steps(total))
    possible, drawn = method.drawn_together(num_wanted, examples_per_step)
    if drawn > possible:
        raise misfit(
            f"timesteps.sampler.probabilities leave {possible} steps to draw from, and {method.type} trains {drawn} "
            "different ones",
            "timesteps.sampler.probabilities",
        )


def refuse_unfit_reference(method: MethodBase, reference: ReferenceSpec) -> None:
    """A reference may move where the loss has one, and its drift is measured where there is something to measure it on."""
    if not method.has_reference and not isinstance(reference, FrozenReference):
        raise misfit(f"{_name(method)} has no reference model: reference must be frozen", "reference")
    if method.learns_from != "rewards":
        return
    chosen = resolve_reference(reference, is_lora=False, is_online=True)
    if not isinstance(chosen, FrozenReference) and drift_metric(chosen) == "mse_gap":
        raise misfit(
            f"reference: the metric mse_gap compares errors on the winners of preference data, and {_name(method)} has none: "
            "choose eps_dist",
            "reference.guard.metric",
            "reference.metric",
        )


def refuse_unfit_reference_cache(method: MethodBase, reference: ReferenceSpec) -> None:
    """Errors are remembered of a reference that never moves, on examples that stay what they are."""
    if (why := method.why_not_remembered()) is not None:
        raise misfit(f"training.reference_cache cannot be used with {_name(method)}: {why}", "training.reference_cache")
    if not isinstance(resolve_reference(reference, is_lora=False, is_online=False), FrozenReference):
        raise misfit(
            "training.reference_cache remembers what a frozen reference errs by, and reference moves",
            "training.reference_cache",
            "reference",
        )


def refuse_unfit_block_shuffle(method: MethodBase) -> None:
    """Blocks are of examples that an epoch visits once each."""
    if (why := method.why_not_in_blocks()) is not None:
        raise misfit(f"training.block_shuffle cannot be used with {_name(method)}: {why}", "training.block_shuffle")


def refuse_unfit_shares(
    resources: ResourceSpec, training: TrainingSpec, reference: ReferenceSpec, *, is_lora: bool
) -> None:
    """What cannot be had where every forward is one that all processes make, or where a network runs with its own weights alone."""
    if resources.strategy != "fsdp2":
        return
    if resources.processes == 1:
        raise misfit(
            "resources.strategy fsdp2 shares the model out over processes: set resources.processes to 2 or more",
            "resources.processes",
        )
    if training.compile == "on":
        raise misfit(
            "training.compile compiles blocks whose weights stay where they are, and with resources.strategy fsdp2 they come and go: "
            "leave it out",
            "training.compile",
        )
    if training.reference_cache is not None:
        raise misfit(
            "training.reference_cache lets a process leave out forwards, which with resources.strategy fsdp2 all make together",
            "training.reference_cache",
        )
    if training.optimizer != "adamw" and not is_lora:
        raise misfit(
            f"training.optimizer {training.optimizer} keeps what it knows of a whole weight, and with resources.strategy fsdp2 "
            "each process has a share of it: use adamw",
            "training.optimizer",
        )
    if not isinstance(reference, MovingReferenceSpec):
        return
    if reference.reg_mode == "through_ema":
        raise misfit(
            "reference.reg_mode through_ema needs a gradient through averaged weights, which resources.strategy fsdp2 cannot give",
            "reference.reg_mode",
        )
    if reference.offload_initial:
        raise misfit(
            "reference.offload_initial moves a whole model, and with resources.strategy fsdp2 each process has a share of it",
            "reference.offload_initial",
        )


def _name(method: MethodBase) -> str:
    return type(method).model_fields["type"].default


def refuse_unfit_micro_batch(method: MethodBase, strategy: Strategy) -> None:
    """A baseline is that of its micro-batch, trajectories are drawn in them, and who runs out of memory cannot leave a forward of all."""
    if method.learns_from != "pairs":
        raise misfit(
            "training.micro_batch auto is for methods that learn from pairs: leave it out and write training.batch_size",
            "training.micro_batch",
        )
    if strategy == "fsdp2":
        raise misfit(
            "training.micro_batch auto lets a process leave a forward that does not fit, which with resources.strategy fsdp2 all make "
            "together: write training.batch_size",
            "training.micro_batch",
        )
