"""From a method's spec to the method and what it learns from."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event
from alignment_core.families.family import Family
from alignment_core.load.online import OnlineMethod, build_online
from alignment_core.load.pairs import PairSplits, load_pairs
from alignment_core.load.reference_errors import reference_errors
from alignment_core.load.sample import Sample
from alignment_core.load.unpaired import ImageSplits, load_images
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.methods.diffusion_kto import DiffusionKTO
from alignment_core.methods.mapo import MaPO
from alignment_core.methods.order import Blocks
from alignment_core.methods.pair_batches import PairDraws
from alignment_core.methods.reference_errors import ReferenceErrors
from alignment_core.protocols import Method
from alignment_core.ranks import Ranks
from alignment_core.reference.drift_on_winners import Winners
from alignment_core.rewards.build import build_ranking_reward, build_reward
from alignment_core.spec import (
    DiffusionDPOSpec,
    DiffusionKTOSpec,
    ImageMethodSpec,
    JobSpec,
    MaPOSpec,
    OnlineMethodSpec,
    PairMethodSpec,
    reward_name,
    sha256_of_json,
)
from alignment_core.spec.prompts import listed
from alignment_core.spec.training import Precision


@dataclass(frozen=True)
class Objective:
    """The method with what it learns from; online methods have no winners and hold nothing out."""

    method: Method[Any]
    winners: Winners | None = None
    reference_errors: ReferenceErrors | None = None
    validation: Method[Any] | None = None
    num_validation_examples: int = 0
    dataset_sha256: str = ""
    vae_precision: Precision = "fp32"
    training_prompts: frozenset[str] = frozenset()
    held_out_prompts: tuple[str, ...] = ()


def load_objective(
    spec: JobSpec,
    family: Family,
    fingerprint: str,
    accelerator: Accelerator,
    ranks: Ranks,
    cache_dir: Path,
    shelves: Shelves | None = None,
    sample: Sample | None = None,
    vae_precision: Precision | None = "fp32",
    images_disk: Disk | None = None,
) -> Generator[Event, None, Objective]:
    """The method that a spec asks for, with its data; the generator's return value is the objective.

    `fingerprint` is that of the model that the run starts from; without a `vae_precision` it is measured.
    """

    def remembered(data: PairSplits | ImageSplits) -> ReferenceErrors | None:
        return reference_errors(
            spec,
            model_sha256=fingerprint,
            dataset_sha256=data.dataset_sha256,
            vae_precision=data.vae_precision,
            num_examples=len(data.train),
            device=family.device,
            cache_dir=cache_dir,
        )

    method = spec.method
    if isinstance(method, PairMethodSpec):
        pairs = yield from load_pairs(
            spec, method, family, cache_dir, shelves, ranks, sample, vae_precision, images_disk
        )
        return _on_pairs(spec, method, pairs, accelerator, remembered(pairs))
    if isinstance(method, ImageMethodSpec):
        images = yield from load_images(
            spec, method, family, cache_dir, shelves, ranks, sample, vae_precision, images_disk
        )
        return _on_images(spec, method, images, accelerator, remembered(images))
    if isinstance(method, OnlineMethodSpec):
        return Objective(
            _online(spec, method, family, accelerator.device, ranks),
            dataset_sha256=sha256_of_json(list(listed(method.prompts))),
            training_prompts=frozenset(listed(method.prompts)),
        )
    assert_never(method)


def _on_pairs(
    spec: JobSpec,
    method: PairMethodSpec,
    data: PairSplits,
    accelerator: Accelerator,
    remembered: ReferenceErrors | None,
) -> Objective:
    validation = None
    if data.validation is not None:
        validation = _pair_method(method, _validation_draws(spec, data.validation, accelerator), None)
    return Objective(
        method=_pair_method(method, _training_draws(spec, data.train, method.caption_dropout, accelerator), remembered),
        reference_errors=remembered,
        winners=data.train,
        validation=validation,
        num_validation_examples=len(data.validation) if data.validation else 0,
        dataset_sha256=data.dataset_sha256,
        vae_precision=data.vae_precision,
        training_prompts=frozenset(data.train.prompts),
        held_out_prompts=tuple(prompt for prompt in data.validation_prompts if prompt),
    )


def _training_draws(
    spec: JobSpec, pairs: PreferencePairs, caption_dropout: float, accelerator: Accelerator
) -> PairDraws:
    return PairDraws(
        pairs=pairs,
        caption_dropout=caption_dropout,
        batch_size=spec.batch_size,
        accumulation=spec.accumulation,
        seed=spec.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        num_draws=_num_draws(spec),
        blocks=_blocks(spec),
    )


def _num_draws(spec: JobSpec) -> int | None:
    return None if spec.training.reference_cache is None else spec.training.reference_cache.draws


def _blocks(spec: JobSpec) -> Blocks | None:
    asked = spec.training.block_shuffle
    return None if asked is None else Blocks(asked.rows, asked.blocks)


def _validation_draws(spec: JobSpec, pairs: PreferencePairs, accelerator: Accelerator) -> PairDraws:
    return PairDraws(
        pairs=pairs,
        caption_dropout=0.0,
        batch_size=spec.batch_size,
        accumulation=1,
        seed=spec.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        blocks=_blocks(spec),
    )


def _pair_method(method: PairMethodSpec, draws: PairDraws, remembered: ReferenceErrors | None) -> Method[Any]:
    match method:
        case DiffusionDPOSpec():
            return DiffusionDPO(
                draws=draws,
                loss_of=pair_loss(method.loss, label_smoothing=method.label_smoothing, dmpo_alpha=method.dmpo_alpha),
                beta=method.beta,
                reduction=method.reduction,
                half_factor=method.half_factor,
                in_eps_units=method.v_rescale == "abar" or method.flow_beta == "one_minus_s_squared",
                reference_errors=remembered,
            )
        case MaPOSpec():
            return MaPO(draws, method.beta, method.kappa, method.logit_scale)
        case _:
            assert_never(method)


def _on_images(
    spec: JobSpec,
    method: DiffusionKTOSpec,
    data: ImageSplits,
    accelerator: Accelerator,
    remembered: ReferenceErrors | None,
) -> Objective:
    def add_up(values: Tensor) -> Tensor:
        return cast(Tensor, accelerator.reduce(values, reduction="sum"))

    train = DiffusionKTO(
        images=data.train,
        beta=method.beta,
        baseline=method.baseline,
        utility=method.utility,
        like_weight=method.like_weight,
        dislike_weight=method.dislike_weight,
        like_probability=method.like_probability,
        caption_dropout=method.caption_dropout,
        batch_size=spec.batch_size,
        accumulation=spec.accumulation,
        seed=spec.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        add_up=add_up,
        num_draws=_num_draws(spec),
        blocks=_blocks(spec),
        reference_errors=remembered,
    )
    validation = None
    if data.validation is not None:  # each image once
        validation = replace(
            train,
            images=data.validation,
            like_probability=None,
            caption_dropout=0.0,
            accumulation=1,
            num_draws=None,
            reference_errors=None,
        )
    return Objective(
        method=train,
        reference_errors=remembered,
        winners=data.train,
        validation=validation,
        num_validation_examples=len(data.validation) if data.validation else 0,
        dataset_sha256=data.dataset_sha256,
        vae_precision=data.vae_precision,
        training_prompts=frozenset(data.train.prompts),
        held_out_prompts=tuple(prompt for prompt in data.validation_prompts if prompt),
    )


def _online(
    spec: JobSpec, method: OnlineMethodSpec, family: Family, device: torch.device, ranks: Ranks
) -> OnlineMethod:
    """Raises `AlignmentError` where a reward cannot read a prompt."""
    build = build_ranking_reward if method.ranks else build_reward  # a ranking survives a score that is no number
    rewards = {reward_name(reward): build(reward, device) for reward in method.trained_rewards}
    rehearse(rewards, listed(method.prompts), spec.evaluation.batch_size, field="method.prompts")
    return build_online(
        method,
        family,
        rewards,
        batch_size=spec.batch_size,
        accumulation=spec.accumulation,
        seed=spec.seed,
        ranks=ranks,
    )
