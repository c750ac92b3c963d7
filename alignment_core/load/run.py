"""From a spec to the objects of a run: the one place that chooses implementations.

Each choice is a `match` on a type or a class. Below this module nothing sees a spec.
"""

import math
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar, assert_never, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch.distributed.device_mesh import init_device_mesh

from alignment_core.actors.actors import Actors, LoraShape, full_actors, lora_actors
from alignment_core.actors.reading_network import ReadingNetwork
from alignment_core.actors.replay import CudaGraphs
from alignment_core.datasets.prompt_lengths import measure
from alignment_core.errors import AlignmentError, DataError, ModelError
from alignment_core.evaluation.evaluate import choose_prompts
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event, ModelLoaded, PrecisionChosen, WarningRaised
from alignment_core.families.family import Family, LargeEncoders, ToldGuidance, TrainableEncoders
from alignment_core.families.single_file import in_a_folder
from alignment_core.families.trained_encoders import WithTrainedEncoders
from alignment_core.load.model import load_model
from alignment_core.load.objective import load_objective
from alignment_core.load.online import OnlineMethod, sampling_grid
from alignment_core.load.optimizer import new_optimizer
from alignment_core.load.plugins import build_reference, build_timesteps
from alignment_core.load.precision import DTYPES, most_exact, prediction_errors
from alignment_core.load.start import StartingLora, begin_with, load_start
from alignment_core.protocols import RewardModel
from alignment_core.ranks import PATIENCE, Ranks, ranks_of
from alignment_core.rewards.build import build_prompt_following, build_reward
from alignment_core.spec import (
    FullFineTune,
    JobSpec,
    LocalSource,
    LoraAdapter,
    reward_name,
)
from alignment_core.spec.controls import is_trained
from alignment_core.spec.families import untrained_encoders
from alignment_core.spec.places import Sources, localize
from alignment_core.spec.reference import shares_a
from alignment_core.spec.start import lora_label
from alignment_core.spec.training import TRAINING_GUIDANCE, Precision, trains_text_encoders
from alignment_core.training.loop import RATE_SCALE, learning_rate_schedule
from alignment_core.training.run import Run, precision_of
from alignment_core.training.watch import Watch


def new_accelerator(spec: JobSpec, precision: Precision | None = None) -> Accelerator:
    """Device, threads, precision, accumulation and processes. Raises `AlignmentError` for a device or precision that is not there.

    `precision` is what `auto` came to; until it is known a GPU begins in the half precision that is likely.
    """
    device, wanted = spec.resources.device, precision or spec.training.precision
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise AlignmentError(
            "no_gpu", "resources.device is cuda, and this machine has no CUDA device", category="capacity"
        )
    if wanted == "fp16" and (device == "cpu" or not has_gpu):
        raise AlignmentError("precision_unsupported", "training.precision fp16 needs a GPU; use fp32 or bf16 on a CPU")
    if wanted == "auto":
        wanted = "fp16" if has_gpu and device != "cpu" else "fp32"
    if spec.resources.num_cpu_threads is not None:
        torch.set_num_threads(spec.resources.num_cpu_threads)
    # What a half-precision run leaves in float32 (the VAE, rewards) loses .02 in the logit to TF32 (docs/precision.md).
    torch.backends.cuda.matmul.fp32_precision = "ieee" if wanted == "fp32" else "tf32"
    # accelerate keeps one state a process, and refuses a second run there that wants another precision.
    AcceleratorState._reset_state()
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(
        kwargs_handlers=[patience],
        mixed_precision="no" if wanted == "fp32" else wanted,
        gradient_accumulation_steps=spec.accumulation,
        cpu=device == "cpu",
    )


def load_run(
    spec: JobSpec, sources: Sources, accelerator: Accelerator, cache_dir: Path, precision: Precision | None = None
) -> Generator[Event, None, Run]:
    """Load model, rewards and data, yielding what happens; the generator's return value is the run.

    `precision` is what the run was begun in, or what its spec and device say; None lets the model be measured on a GPU.
    """
    ranks = ranks_of(accelerator.process_index, accelerator.num_processes)
    with accelerator.main_process_first():  # the others find an unpacked file in the cache
        here = _on_this_machine(spec, sources, cache_dir)
    accelerator, family = yield from _load_in_precision(here, accelerator, precision, ranks)
    start = _load_start(spec, here, family)
    actors = _build_actors(spec, family, accelerator, start)
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
    with accelerator.main_process_first():  # the others find everything in the cache
        objective = yield from load_objective(here, family, fingerprint, accelerator, ranks, cache_dir)
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
    if ranks.count > 1 and spec.resources.strategy == "ddp":
        actors.trained = accelerator.prepare_model(actors.denoiser)
    if _are_recorded(spec, actors, accelerator):
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
            _set(training.learning_rate),
            warmup_steps=_set(training.warmup_steps),
            total_steps=training.steps,
        ),
        evaluation_prompts=prompts,
        rewards=rewards,
        prompt_following=prompt_following,
        watch=_build_watch(spec),
        label=sources.label,
        start=None if start is None else start.described(),
    )


def load_networks(spec: JobSpec, sources: Sources, accelerator: Accelerator, cache_dir: Path) -> tuple[Family, Actors]:
    """The networks of a spec alone, at step 0, with the family that they belong to."""
    here = _on_this_machine(spec, sources, cache_dir)
    family = _load_model(here, accelerator)
    return family, _build_actors(spec, family, accelerator, _load_start(spec, here, family))


# --- the model -----------------------------------------------------------------------------------------------------


def _on_this_machine(spec: JobSpec, sources: Sources, cache_dir: Path) -> JobSpec:
    """The spec with every name in it replaced by its place, and a model in one file by the folder that it is unpacked to."""
    here = localize(spec, sources)
    return here.model_copy(update={"model": in_a_folder(here.model, cache_dir)})


def _load_in_precision(
    spec: JobSpec, accelerator: Accelerator, precision: Precision | None, ranks: Ranks
) -> Generator[Event, None, tuple[Accelerator, Family]]:
    """The model in the precision that was asked for, or in the more exact of the half ones."""
    if precision is not None and precision != precision_of(accelerator):
        accelerator = new_accelerator(spec, precision)
    family = _load_model(spec, accelerator)
    if spec.training.precision != "auto" or precision is not None or accelerator.device.type == "cpu":
        return accelerator, family
    errors = ranks.everywhere(lambda: prediction_errors(family))[0]  # all in the same, on whatever cards they are
    chosen = most_exact(errors)
    told = {half: error if math.isfinite(error) else None for half, error in errors.items()}
    yield PrecisionChosen(precision=chosen, prediction_errors=dict(told))
    if chosen == precision_of(accelerator):
        return accelerator, family
    del family  # before the other one takes as much memory
    accelerator = new_accelerator(spec, chosen)
    return accelerator, _load_model(spec, accelerator)


def _load_model(spec: JobSpec, accelerator: Accelerator) -> Family:
    half = DTYPES[precision_of(accelerator)]
    # A full fine-tune keeps float32 master weights and leaves the rounding to autocast.
    denoiser_dtype = torch.float32 if isinstance(spec.adapter, FullFineTune) else half
    family = load_model(spec.model, device=accelerator.device, frozen_dtype=half, denoiser_dtype=denoiser_dtype)
    if isinstance(family, ToldGuidance):
        family.training_guidance = spec.training.embedded_guidance
    return _with_trained_encoders(family) if trains_text_encoders(spec.adapter) else family


def _with_trained_encoders(family: Family) -> Family:
    if not isinstance(family, TrainableEncoders):
        raise ModelError("text_encoder_unsupported", f"adapter.text_encoder: {untrained_encoders(family.keys.family)}")
    return WithTrainedEncoders(family)


def _load_start(spec: JobSpec, here: JobSpec, family: Family) -> StartingLora | None:
    """`here` is the spec as this machine finds its names; what people call the LoRA stands in the one that they wrote."""
    if here.start is None or spec.start is None:
        return None
    return load_start(here.start.resolved(), lora_label(spec.start.lora), family)


def _build_actors(spec: JobSpec, family: Family, accelerator: Accelerator, start: StartingLora | None) -> Actors:
    if spec.training.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    match spec.adapter:
        case LoraAdapter(rank=rank, alpha=alpha, target_modules=targets, text_encoder=text):
            actors = lora_actors(
                family,
                family.denoiser,
                rank=rank,
                alpha=_set(alpha),
                target_modules=_set(targets),
                seed=spec.seed,
                autocast=lambda: accelerator.autocast(),
                text_encoders=None
                if text is None
                else LoraShape(_set(text.rank), _set(text.alpha), text.target_modules),
            )
            if start is not None and start.spec.mode == "train":
                begin_with(actors, start, spec.adapter)
            if shares_a(spec.reference):
                actors.freeze_a()
            return actors
        case FullFineTune():
            return full_actors(family, family.denoiser, autocast=lambda: accelerator.autocast())
        case _:
            assert_never(spec.adapter)


def _are_recorded(spec: JobSpec, actors: Actors, accelerator: Accelerator) -> bool:
    """Whether the networks' kernels are recorded: where shapes stay, and nothing but kernels happens between them."""
    return (
        spec.training.cuda_graphs == "auto"
        and accelerator.device.type == "cuda"
        and accelerator.num_processes == 1
        and not spec.is_online
        and not spec.training.gradient_checkpointing
        and not isinstance(actors.denoiser, ReadingNetwork)
    )


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
        learning_rate=_set(spec.training.learning_rate),
        is_fused=is_fused,
    )
    return cast(AcceleratedOptimizer, accelerator.prepare_optimizer(optimizer))


def _parameter_groups(spec: JobSpec, actors: Actors) -> list[dict[str, Any]]:
    """One group, or a second one of text encoders whose learning rate is another; the loop scales each group's rate."""
    text = spec.adapter.text_encoder if isinstance(spec.adapter, LoraAdapter) else None
    if text is None or text.learning_rate is None:
        return [{"params": list(actors.trainable().values())}]
    denoiser, encoders = actors.trainable_parts()
    scale = text.learning_rate / _set(spec.training.learning_rate)
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


T = TypeVar("T")


def _set(value: T | None) -> T:
    assert value is not None, "the spec is resolved"
    return value
