"""From a method's spec to the method and what it learns from."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from accelerate import Accelerator

from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.errors import AlignmentError
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event
from alignment_core.families.sd import StableDiffusion
from alignment_core.load_online import OnlineMethod, build_online
from alignment_core.load_pairs import PairSplits, load_pairs
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.protocols import Method
from alignment_core.rewards.build import build_ranking_reward, build_reward
from alignment_core.spec import (
    D3POSpec,
    DDPOSpec,
    DiffusionDPOSpec,
    DPOKSpec,
    JobSpec,
    OnlineMethodSpec,
    TailorPOSpec,
    reward_name,
    sha256_of_json,
)
from alignment_core.spec_controls import rewards_of


@dataclass(frozen=True)
class Objective:
    """The method with what it learns from; online methods have no pairs and hold nothing out."""

    method: Method[Any]
    pairs: PreferencePairs | None = None
    validation: Method[Any] | None = None
    num_validation_examples: int = 0
    dataset_sha256: str = ""
    training_prompts: frozenset[str] = frozenset()
    held_out_prompts: tuple[str, ...] = ()


def load_objective(
    spec: JobSpec, family: StableDiffusion, accelerator: Accelerator, cache_dir: Path
) -> Generator[Event, None, Objective]:
    """The method that a spec asks for, with its data; the generator's return value is the objective."""
    match spec.method:
        case DiffusionDPOSpec() as method:
            return _on_pairs(spec, method, (yield from load_pairs(spec, method, family, cache_dir)), accelerator)
        case TailorPOSpec() | D3POSpec() | DDPOSpec() | DPOKSpec() as method:
            return Objective(
                _online(spec, method, family, accelerator),
                dataset_sha256=sha256_of_json(list(method.prompts)),
                training_prompts=frozenset(method.prompts),
            )
        case _:
            assert_never(spec.method)


def _on_pairs(spec: JobSpec, method: DiffusionDPOSpec, data: PairSplits, accelerator: Accelerator) -> Objective:
    training, validation = spec.training, None
    if data.validation is not None:
        validation = _diffusion_dpo(
            method, data.validation, caption_dropout=0.0, batch_size=training.batch_size, accumulation=1, seed=spec.seed
        )
    return Objective(
        method=_diffusion_dpo(
            method,
            data.train,
            caption_dropout=method.caption_dropout,
            batch_size=training.batch_size,
            accumulation=training.gradient_accumulation_steps,
            seed=spec.seed,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        ),
        pairs=data.train,
        validation=validation,
        num_validation_examples=len(data.validation) if data.validation else 0,
        dataset_sha256=data.dataset_sha256,
        training_prompts=frozenset(data.train.prompts),
        held_out_prompts=tuple(prompt for prompt in data.validation_prompts if prompt),
    )


def _online(spec: JobSpec, method: OnlineMethodSpec, family: StableDiffusion, accelerator: Accelerator) -> OnlineMethod:
    """Raises `AlignmentError` where several processes train, or a reward cannot read a prompt."""
    if accelerator.num_processes > 1:
        raise AlignmentError("one_process_only", f"{method.type} trains in one process, and this run has several")
    ranks = isinstance(method, TailorPOSpec | D3POSpec)  # a ranking survives a score that is no number
    build = build_ranking_reward if ranks else build_reward
    rewards = {reward_name(reward): build(reward, accelerator.device) for reward in rewards_of(method)}
    rehearse(rewards, method.prompts, spec.evaluation.batch_size, field="method.prompts")
    return build_online(
        method,
        family,
        rewards,
        batch_size=spec.training.batch_size,
        accumulation=spec.training.gradient_accumulation_steps,
        seed=spec.seed,
    )


def _diffusion_dpo(
    method: DiffusionDPOSpec,
    pairs: PreferencePairs,
    *,
    caption_dropout: float,
    batch_size: int,
    accumulation: int,
    seed: int,
    rank: int = 0,
    num_processes: int = 1,
) -> DiffusionDPO:
    return DiffusionDPO(
        pairs=pairs,
        loss_of=pair_loss(method.loss, label_smoothing=method.label_smoothing, dmpo_alpha=method.dmpo_alpha),
        beta=method.beta,
        sum_reduction=method.reduction == "sum",
        half_factor=method.half_factor,
        rescale_v=method.v_rescale == "abar",
        caption_dropout=caption_dropout,
        batch_size=batch_size,
        accumulation=accumulation,
        seed=seed,
        rank=rank,
        num_processes=num_processes,
    )
