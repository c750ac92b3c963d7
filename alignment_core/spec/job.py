"""JobSpec: everything that may be asked of a run, as frozen data.

Pure data: with the other modules of `spec/` it imports pydantic and nothing else, so that the service, the worker,
the client and the library read the same definition. A default lives here or there and nowhere else, with its range and
its source; `docs/methods.md` has the equations.
"""

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.controls import with_controls
from alignment_core.spec.evaluation import EvaluationSpec
from alignment_core.spec.families import ATTENTION, FAMILIES, FamilyName
from alignment_core.spec.fits import (
    refuse_short_table,
    refuse_unfit_block_shuffle,
    refuse_unfit_micro_batch,
    refuse_unfit_reference,
    refuse_unfit_reference_cache,
    refuse_unfit_shares,
    refuse_unfit_timesteps,
)
from alignment_core.spec.guards import GuardsSpec
from alignment_core.spec.online import OnlineMethodSpec
from alignment_core.spec.pairs import PairMethodSpec
from alignment_core.spec.recipes import batch_of, resolve_training
from alignment_core.spec.reference import (
    FrozenReference,
    HardCopyReference,
    ReferenceSpec,
    is_copied_whole,
    refuse_unfit_store,
    resolve_reference,
)
from alignment_core.spec.sources import (
    ModelSpec,
)
from alignment_core.spec.start import StartSpec
from alignment_core.spec.timesteps import (
    TimestepSpec,
    UniformTimesteps,
    resolve_timesteps,
)
from alignment_core.spec.training import (
    AdapterSpec,
    CheckpointSpec,
    LoraAdapter,
    ResourceSpec,
    TrainingSpec,
)
from alignment_core.spec.unions import OneOf
from alignment_core.spec.unpaired import ImageMethodSpec

OfflineMethodSpec = PairMethodSpec | ImageMethodSpec
MethodSpec = Annotated[OfflineMethodSpec | OnlineMethodSpec, OneOf()]


# Where they are left at their default, specs from before there were such fields keep their hash.
LATER_FIELDS = (
    ("", "start"),
    ("method", "flow_beta"),
    ("training", "embedded_guidance"),
    ("training", "reference_cache"),
    ("training", "block_shuffle"),
    ("training", "cuda_graphs"),
    ("training", "compile"),
    ("training", "optimizer"),
    ("training", "micro_batch"),
    ("training", "vae_precision"),
    ("resources", "processes"),
    ("adapter", "text_encoder"),
    ("resources", "strategy"),
)


class JobSpec(Spec):
    """One alignment run, complete."""

    model: ModelSpec
    start: StartSpec | None = None
    method: MethodSpec
    reference: ReferenceSpec = FrozenReference()
    timesteps: TimestepSpec = UniformTimesteps()
    adapter: AdapterSpec = LoraAdapter()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    guards: GuardsSpec = GuardsSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    resources: ResourceSpec = ResourceSpec()
    seed: int = Field(default=0, ge=0, lt=2**63, description="Every random draw of the run follows from it.")

    @property
    def is_online(self) -> bool:
        """Whether the method draws the images that it learns from."""
        return self.method.learns_from == "rewards"

    @property
    def steps_use_vae(self) -> bool:
        """Whether its steps decode what they draw, or encode images that are others at each visit."""
        return isinstance(self.method, OnlineMethodSpec) or self.method.transform.is_random

    @property
    def batch_size(self) -> int:
        """Examples in one forward pass on one device, also where `training` leaves it out."""
        return batch_of(self.training, self.method, self.resources.processes)[0]

    @property
    def accumulation(self) -> int:
        """Forward passes in one optimiser step, also where `training` leaves it out."""
        return batch_of(self.training, self.method, self.resources.processes)[1]

    @property
    def examples_per_step(self) -> int:
        """The effective batch, of all processes together."""
        return self.batch_size * self.accumulation * self.resources.processes

    @property
    def steps_per_turn(self) -> int:
        """Optimiser steps in what `reference.every` counts: an iteration of an online method, else 1."""
        return self.method.steps_per_turn(self.examples_per_step)

    @model_validator(mode="after")
    def _the_method_fits_the_run(self) -> Self:
        method = self.method
        refuse_unfit_reference(method, self.reference)
        if self.training.reference_cache is not None:
            refuse_unfit_reference_cache(method, self.reference)
        if self.training.block_shuffle is not None:
            refuse_unfit_block_shuffle(method)
        method.refuse_batch(self.batch_size, self.examples_per_step)
        if self.is_online and self.training.validate_every is not None:
            raise misfit(
                f"training.validate_every needs preference data to hold out; {method.type} has none",
                "training.validate_every",
            )
        if self.training.micro_batch == "auto":
            refuse_unfit_micro_batch(method, self.resources.strategy)
        refuse_unfit_timesteps(method, self.timesteps)
        if isinstance(method, OnlineMethodSpec):
            refuse_short_table(method, self.timesteps, self.examples_per_step)
        return self

    @model_validator(mode="after")
    def _the_reference_fits_the_run(self) -> Self:
        is_lora = isinstance(self.adapter, LoraAdapter)
        reference = resolve_reference(self.reference, is_lora=is_lora, is_online=self.is_online)
        if isinstance(reference, FrozenReference):
            return self
        if not isinstance(reference, HardCopyReference):
            refuse_unfit_store(reference, self.adapter.highest_rank if isinstance(self.adapter, LoraAdapter) else None)
        if is_lora and reference.offload_initial:
            raise misfit(
                "reference.offload_initial is for full fine-tunes; with LoRA the initial model costs nothing",
                "reference.offload_initial",
            )
        if reference.reg_mode == "through_ema" and self.training.gradient_checkpointing:
            raise misfit(
                "reference.reg_mode through_ema excludes training.gradient_checkpointing, which would recompute the "
                "reference with the policy's weights",
                "reference.reg_mode",
            )
        return self

    @model_validator(mode="after")
    def _the_processes_fit_the_run(self) -> Self:
        is_lora = isinstance(self.adapter, LoraAdapter)
        reference = resolve_reference(self.reference, is_lora=is_lora, is_online=self.is_online)
        refuse_unfit_shares(self.resources, self.training, reference, is_lora=is_lora)
        return self

    @model_validator(mode="after")
    def _the_start_fits_the_run(self) -> Self:
        if self.start is not None and self.start.mode == "train" and not isinstance(self.adapter, LoraAdapter):
            raise misfit(
                "start.mode train goes on with a LoRA, and adapter is full: write merge, or leave adapter out",
                "start.mode",
            )
        return self

    @model_validator(mode="after")
    def _a_report_has_prompts(self) -> Self:
        if not self.evaluation.rewards or self.evaluation.prompts is not None:
            return self
        if self.is_online:
            raise misfit(
                f"evaluation.rewards asks for a report, and {self.method.type} has no data to hold prompts out of: give "
                "evaluation.prompts, which are not trained on",
                "evaluation.prompts",
            )
        if self.training.validation_fraction == 0:
            raise misfit(
                "evaluation.rewards asks for a report, and no prompts are held out for it: give evaluation.prompts, or a "
                "training.validation_fraction above 0",
                "training.validation_fraction",
            )
        return self

    @model_validator(mode="after")
    def _the_best_can_be_told(self) -> Self:
        evaluation = self.evaluation
        fills_in = self.is_online and evaluation.prompts is not None
        if evaluation.every is not None and not evaluation.rewards and not fills_in:
            raise misfit(
                "evaluation.every measures evaluation.rewards while the model trains, and there are none",
                "evaluation.every",
            )
        if self.checkpoints.result == "best" and self.evaluation.every is None:
            raise misfit(
                "checkpoints.result best is chosen by held-out reward: set evaluation.every", "checkpoints.result"
            )
        return self

    def resolved(self, family: FamilyName | None = None) -> "JobSpec":
        """The same spec with every default that depends on another field written out, and those of the model's family if it is known."""
        method, adapter = self.method.resolved(), _resolved_adapter(self.adapter, family)
        is_lora = isinstance(adapter, LoraAdapter)
        reference = resolve_reference(self.reference, is_lora=is_lora, is_online=self.is_online)
        resets = is_copied_whole(reference) and method.signal == "margin"  # an advantage stays what it is
        timesteps = resolve_timesteps(self.timesteps, reference_is_copied=resets)
        return self.model_copy(
            update={
                "method": method,
                "reference": reference,
                "timesteps": timesteps,
                "adapter": adapter,
                "start": self.start and self.start.resolved(),
                "training": resolve_training(self.training, method, adapter, self.resources.processes),
                "checkpoints": _with_result(self.checkpoints, self.evaluation),
                "evaluation": with_controls(self.evaluation, method),
            }
        )

    def sha256(self) -> str:
        """Hash of the resolved spec: a work folder is resumed only under the same one.

        How long a run may take and on how many threads is not part of it: a run that hit its limit may be given more. Nor are
        words about a number that is, or what is tried before the run and undone.
        """
        apart = {
            "resources": {"max_run_seconds", "num_cpu_threads"},
            "training": {"learning_rate_source", "start_checks"},
        }
        values = self.resolved().model_dump(mode="json", exclude=apart)
        for part, name in LATER_FIELDS:
            owner, parsed = (values[part], getattr(self, part)) if part else (values, self)
            field = type(parsed).model_fields.get(name)
            if field is not None and owner[name] == field.default:
                del owner[name]
        if values["adapter"].get("target_modules", ()) is None:  # what it meant when it did not follow from the family
            values["adapter"]["target_modules"] = ATTENTION
        return sha256_of_json(_without_later_of_rewards(values))


def _without_later_of_rewards(value: Any) -> Any:
    """The same without the fields of rewards, wherever these are, that are younger than specs with such rewards and left out."""
    match value:
        case {"type": "remote", "version": None}:
            return {name: one for name, one in value.items() if name != "version"}
        case dict():
            return {name: _without_later_of_rewards(one) for name, one in value.items()}
        case list():
            return [_without_later_of_rewards(one) for one in value]
        case _:
            return value


def _resolved_adapter(adapter: AdapterSpec, family: FamilyName | None) -> AdapterSpec:
    if not isinstance(adapter, LoraAdapter):
        return adapter
    targets = adapter.target_modules or (None if family is None else FAMILIES[family].lora_targets)
    return adapter.resolved().model_copy(update={"target_modules": targets})


def _with_result(checkpoints: CheckpointSpec, evaluation: EvaluationSpec) -> CheckpointSpec:
    if checkpoints.result is not None:
        return checkpoints
    return checkpoints.model_copy(update={"result": "last" if evaluation.every is None else "best"})


def sha256_of_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
