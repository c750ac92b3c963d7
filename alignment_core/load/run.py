"""From a spec to the objects of a run: the one place that chooses implementations.

Each choice is a `match` on a type or a class. Below this module nothing sees a spec.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from alignment_core.actors.actors import Actors
from alignment_core.actors.compiled_blocks import keep_compiled_in
from alignment_core.actors.replay import CudaGraphs
from alignment_core.datasets.prompt_lengths import measure
from alignment_core.errors import DataError, ModelError
from alignment_core.evaluation.evaluate import choose_prompts
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event, ModelLoaded, WarningRaised
from alignment_core.families.family import Family, LargeEncoders, ToldGuidance
from alignment_core.load.networks import (
    are_recorded,
    build_actors,
    load_in_precision,
    load_starting_lora,
    on_this_machine,
)
from alignment_core.load.objective import load_objective
from alignment_core.load.online import OnlineMethod, sampling_grid
from alignment_core.load.optimizer import new_optimizer
from alignment_core.load.reference import build_reference
from alignment_core.load.resolved import known
from alignment_core.load.shelves import shelves_of
from alignment_core.load.timesteps import build_timesteps
from alignment_core.protocols import RewardModel
from alignment_core.ranks import ranks_of
from alignment_core.rewards.build import build_prompt_following, build_reward
from alignment_core.spec import (
    JobSpec,
    LocalSource,
    LoraAdapter,
    reward_name,
)
from alignment_core.spec.controls import is_trained
from alignment_core.spec.places import Sources
from alignment_core.spec.training import TRAINING_GUIDANCE, Precision
from alignment_core.training.loop import RATE_SCALE, learning_rate_schedule
from alignment_core.training.run import Run
from alignment_core.training.watch import Watch


def load_run(
    spec: JobSpec, sources: Sources, accelerator: Accelerator, cache_dir: Path, precision: Precision | None = None
) -> Generator[Event, None, Run]:
    """Load model, rewards and data, yielding what happens; the generator's return value is the run.

    `precision` is what the run was begun in, or what its spec and device say; None lets the model be measured on a GPU.
    """
    ranks = ranks_of(accelerator.process_index, accelerator.num_processes)
    with accelerator.main_process_first():  # the others find an unpacked file in the cache
        here = on_this_machine(spec, sources, cache_dir)
    accelerator, family = yield from load_in_precision(here, accelerator, precision, ranks, cache_dir)
    start = load_starting_lora(spec, here, family)
    actors = build_actors(spec, family, accelerator, start)
    if spec.resources.strategy == "fsdp2":  # before there is a reference or an optimiser, which then lie in shares too
        actors.shard(init_device_mesh(accelerator.device.type, (ranks.count,)))
    of_folder = family.fingerprint()
    fingerprint = of_folder if start is None else start.initial_model_sha256(of_folder)
    _refuse_misread_options(spec, family)
    if spec.evaluation.rewards:
        sampling_grid(family, spec.evaluation.num_inference_steps, 0.0, "evaluation.num_inference_steps")
    yield _model_loaded(family, actors, fingerprint)
    if isinstance(here.model, LocalSource) and family.folder.variant is not None:
        yield _variant_taken(family.folder.variant)
    rewards, prompt_following = _build_rewards(here, accelerator.device)
    shelves = shelves_of(sources, ranks)
    objective = yield from load_objective(here, family, fingerprint, accelerator, ranks, cache_dir, shelves)
    prompts = spec.evaluation.prompts or objective.held_out_prompts
    if spec.evaluation.rewards and not prompts:
        raise DataError(
            "no_evaluation_prompts",
            "evaluation.rewards asks for a report, and there are no held-out prompts",
            hint="Give evaluation.prompts, or preference data and a training.validation_fraction that holds out a group with a prompt.",
        )
    if seen := set(prompts) & objective.training_prompts:
        yield _prompts_seen(len(seen), len(set(prompts)))
    lengths = measure(prompts, family.tokenize, family.max_tokens)
    if lengths.cut:
        yield lengths.warning("evaluation prompts", sum(one in lengths.cut for one in prompts), len(prompts))
    _rehearse(spec, rewards, prompt_following, prompts)
    online = objective.method if isinstance(objective.method, OnlineMethod) else None
    setup = online.setup if online is not None else None
    reference = build_reference(spec, actors, objective.winners, setup, accelerator)
    if isinstance(family, LargeEncoders):
        family.release_encoders()  # what the data needs of them is in the cache
    optimizer = _build_optimizer(spec, actors, accelerator)
    is_recorded = are_recorded(spec, actors, accelerator)
    if ranks.count > 1 and spec.resources.strategy == "ddp":
        # What is recorded, or may run out of memory by itself, cannot send its gradients from within the backward.
        if is_recorded or spec.training.micro_batch == "auto":
            actors.average_apart()
        else:
            actors.trained = _with_averaged_gradients(actors.denoiser, accelerator.device)
    if spec.training.compile != "off":
        keep_compiled_in(cache_dir / "compiled")
    if is_recorded:
        actors.record_with(CudaGraphs())
    training = spec.training
    return Run(
        spec=spec,
        accelerator=accelerator,
        ranks=ranks,
        family=family,
        base_model_sha256=fingerprint,
        folder_sha256=of_folder,
        dataset_sha256=objective.dataset_sha256,
        actors=actors,
        method=objective.method,
        validation=objective.validation,
        num_validation_examples=objective.num_validation_examples,
        reference=reference,
        reference_errors=objective.reference_errors,
        timesteps=build_timesteps(spec.timesteps, family.path, online),
        optimizer=optimizer,
        learning_rate_at=learning_rate_schedule(
            training.schedule,
            known(training.learning_rate),
            warmup_steps=known(training.warmup_steps),
            total_steps=training.steps,
        ),
        evaluation_prompts=prompts,
        rewards=rewards,
        prompt_following=prompt_following,
        watch=_build_watch(spec),
        label=sources.label,
        start=None if start is None else start.described(),
    )


def _with_averaged_gradients(network: torch.nn.Module, device: torch.device) -> DistributedDataParallel:
    """Not by accelerate, which gives the network itself an autocast that nothing below can leave, a measurement in float32 neither."""
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _model_loaded(family: Family, actors: Actors, fingerprint: str) -> ModelLoaded:
    trainable = sum(parameter.numel() for parameter in actors.trainable().values())
    return ModelLoaded(
        base_model_sha256=fingerprint,
        num_parameters=actors.num_base_parameters(),
        num_trainable_parameters=trainable,
        resolution=family.resolution,
        prediction_type=family.path.prediction_type,
    )


def _build_optimizer(spec: JobSpec, actors: Actors, accelerator: Accelerator) -> AcceleratedOptimizer:
    # The loss scaler skips a step of a fused optimiser inside its kernel, where nobody sees it.
    is_fused = accelerator.device.type == "cuda" and accelerator.scaler is None
    optimizer = new_optimizer(
        spec.training,
        _parameter_groups(spec, actors),
        learning_rate=known(spec.training.learning_rate),
        is_fused=is_fused,
    )
    return cast(AcceleratedOptimizer, accelerator.prepare_optimizer(optimizer))


def _parameter_groups(spec: JobSpec, actors: Actors) -> list[dict[str, Any]]:
    """One group, or a second one of text encoders whose learning rate is another; the loop scales each group's rate."""
    text = spec.adapter.text_encoder if isinstance(spec.adapter, LoraAdapter) else None
    if text is None or text.learning_rate is None:
        return [{"params": list(actors.trainable().values())}]
    denoiser, encoders = actors.trainable_parts()
    scale = text.learning_rate / known(spec.training.learning_rate)
    return [{"params": list(denoiser.values())}, {"params": list(encoders.values()), RATE_SCALE: scale}]


def _build_rewards(spec: JobSpec, device: torch.device) -> tuple[dict[str, RewardModel], RewardModel | None]:
    rewards = {reward_name(reward): build_reward(reward, device) for reward in spec.evaluation.rewards}
    judge = spec.evaluation.prompt_following
    return rewards, build_prompt_following(judge, device) if judge is not None else None


def _refuse_misread_options(spec: JobSpec, family: Family) -> None:
    method = spec.method
    if method.needs_v_prediction and family.path.prediction_type != "v_prediction":
        raise ModelError(
            "v_rescale_unsupported",
            f"method.v_rescale is for v-prediction models, and this one predicts {family.path.prediction_type}",
        )
    if spec.training.embedded_guidance != TRAINING_GUIDANCE and not isinstance(family, ToldGuidance):
        raise ModelError(
            "embedded_guidance_unsupported",
            "training.embedded_guidance is for models that are told their guidance, and this one is guided by a second forward",
        )
    if method.needs_flow and family.path.prediction_type != "flow":
        raise ModelError(
            "flow_beta_unsupported",
            f"method.flow_beta is for flow matching, and this model predicts {family.path.prediction_type}",
        )


def _build_watch(spec: JobSpec) -> Watch:
    """The first evaluation reward chooses the best; its rise, or that of one that is trained on, may be hacking."""
    judged = [reward_name(reward) for reward in spec.evaluation.rewards]
    trained = frozenset(reward_name(reward) for reward in spec.evaluation.rewards if is_trained(reward, spec.method))
    primary = next(iter(judged), None)
    return Watch(
        spec.guards, primary=primary, risen=next((name for name in judged if name in trained), primary), trained=trained
    )


def _variant_taken(variant: str) -> WarningRaised:
    message = f"the model's folder has weights in the variant {variant} alone; they are what is trained on"
    return WarningRaised(code="weights_variant", message=message)


def _prompts_seen(num_seen: int, num_prompts: int) -> WarningRaised:
    return WarningRaised(
        code="evaluation_prompts_seen",
        message=f"{num_seen} of {num_prompts} evaluation prompts are trained on too: the report is not on held-out prompts",
    )


def _rehearse(
    spec: JobSpec, rewards: dict[str, RewardModel], prompt_following: RewardModel | None, prompts: Sequence[str]
) -> None:
    """Score blank images, so that a prompt that a reward cannot read stops the run now and not after training."""
    judges = rewards if prompt_following is None else {**rewards, "prompt_following": prompt_following}
    rehearse(judges, choose_prompts(prompts, spec.evaluation.max_prompts), spec.evaluation.batch_size)
