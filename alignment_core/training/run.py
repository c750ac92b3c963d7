"""Run: the objects that a spec stands for, and how their state is saved and restored.

Below this module nothing sees a spec: every part is given plain arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.actors.actors import Actors
from alignment_core.datasets.shelf import Shelves
from alignment_core.errors import CheckpointError
from alignment_core.families.family import Family
from alignment_core.methods.reference_errors import ReferenceErrors
from alignment_core.protocols import Method, ReferenceUpdate, RewardModel, TimestepStrategy
from alignment_core.ranks import Ranks
from alignment_core.reports import StartingPoint
from alignment_core.rollouts.setup import Resumable
from alignment_core.shapes import Images
from alignment_core.shares import whole_in_first
from alignment_core.spec import JobSpec
from alignment_core.spec.places import RunLabel
from alignment_core.spec.training import Precision
from alignment_core.training.background import BackgroundSave
from alignment_core.training.history import History
from alignment_core.training.micro_batch import OWN_MEMORY, Split, StepMemory, cut_up, free_memory
from alignment_core.training.run_state import RunState
from alignment_core.training.throughput import Meter
from alignment_core.training.watch import Seen, Watch
from alignment_core.training.watch_record import load_watch, save_watch
from alignment_core.versions import versions

WATCH = "watch.json"

HISTORY = "history.json"


def precision_of(accelerator: Accelerator) -> Precision:
    """What networks compute in under this accelerator's autocast."""
    match accelerator.mixed_precision:
        case "no":
            return "fp32"
        case "bf16" | "fp16" as half:
            return half
        case other:
            raise AssertionError(f"no run asks for {other}")


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint that is in the host's memory but for what is small; a LoRA is, and is written already."""

    temporary: Path
    manifest: checkpoints.Manifest
    tensors: dict[str, dict[str, Tensor]]
    family: Family
    actors: Actors | None

    @property
    def num_bytes(self) -> int:
        """What is yet to be written, but for a full fine-tune's weights, which the optimizer has twice."""
        return sum(tensor.nbytes for held in self.tensors.values() for tensor in held.values())

    def write(self) -> Path:
        """Write everything, and give the folder its final name; returns it."""
        if self.actors is not None:
            self.family.save_policy(self.actors, self.temporary)
        for name, held in self.tensors.items():
            checkpoints.save_tensors(self.temporary / checkpoints.STATE / f"{name}.safetensors", held)
        return checkpoints.commit(self.temporary, self.manifest)


@dataclass
class Run:
    """Everything a run needs once it is loaded."""

    spec: JobSpec
    accelerator: Accelerator
    ranks: Ranks
    family: Family
    base_model_sha256: str
    folder_sha256: str
    dataset_sha256: str
    actors: Actors
    method: Method[Any]
    validation: Method[Any] | None
    num_validation_examples: int
    reference: ReferenceUpdate
    reference_errors: ReferenceErrors | None
    timesteps: TimestepStrategy
    optimizer: AcceleratedOptimizer
    learning_rate_at: Callable[[int], float]
    evaluation_prompts: Sequence[str]
    rewards: dict[str, RewardModel]
    prompt_following: RewardModel | None
    watch: Watch
    label: RunLabel = field(default_factory=RunLabel)
    start: StartingPoint | None = None
    vae_precision: Precision = "fp32"  # in which the data set's images are encoded
    shelves: Shelves | None = None  # of the store that others share, where there is one
    history: History = field(default_factory=History)
    background: BackgroundSave = field(init=False)
    asked_steps: set[int] = field(default_factory=set)  # whose checkpoints somebody asked for
    is_compiled: bool | None = None  # what `training.compile` came to; None until that is weighed
    state: RunState = field(init=False)
    meter: Meter = field(init=False)
    split: Split = field(init=False)

    def __post_init__(self) -> None:
        self.state = RunState(total_steps=self.spec.training.steps)
        self.background = BackgroundSave(self.ranks)
        self.meter = Meter(self.spec.examples_per_step, self.ranks.count, self.accelerator.device)
        self.split = Split(self.spec.batch_size, self.spec.accumulation)
        if self.finds_split and self.accelerator.device.type == "cuda":
            self.use_split(Split(self._examples_per_process, 1))

    @property
    def finds_split(self) -> bool:
        """Whether the memory decides how a step is cut up."""
        return self.spec.training.micro_batch == "auto"

    @property
    def _examples_per_process(self) -> int:
        return self.spec.batch_size * self.spec.accumulation

    @property
    def memory(self) -> StepMemory:
        """Whether a step fits: that of all processes where they decide by it how to cut it up."""
        return StepMemory(self.ranks) if self.finds_split else OWN_MEMORY

    def use_split(self, split: Split) -> None:
        """Cut up the steps that follow so; one that was begun is forgotten."""
        self.split, self.method = split, cut_up(self.method, split)
        self.accelerator.gradient_accumulation_steps = split.accumulation
        self.accelerator.step = 0
        self.actors.forget_recordings()
        self.optimizer.zero_grad()
        free_memory()

    @property
    def precision(self) -> Precision:
        """What the networks compute in."""
        return precision_of(self.accelerator)

    def save(self, folder: Path) -> Path:
        """Write the checkpoint of the last completed step, from the first process while the others wait; returns its folder."""
        with self.actors.gathered():
            tensors = self.tensors()
            return self.ranks.of_first(lambda: self._snapshot(folder, tensors).write())

    def snapshot(self, folder: Path) -> Snapshot | None:
        """The checkpoint of the last completed step as a copy in the host's memory of the first process, to be written at any time."""
        with self.actors.gathered():
            tensors = self.tensors()
            return self.ranks.in_first(lambda: self._snapshot(folder, tensors))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps beside the weights, by file; what lies in shares the first process has."""
        return {
            "optimizer": checkpoints.optimizer_tensors(self.optimizer, list(self.actors.trainable())),
            "reference": self.reference.state_dict(),
            "reference_weights": {name: whole_in_first(value) for name, value in self.actors.reference.items()},
            "timesteps": self.timesteps.state_dict(),
            "method": self.method.state_at(self.state.step) if isinstance(self.method, Resumable) else {},
        }

    def _snapshot(self, folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> Snapshot:
        step = self.state.step
        temporary = checkpoints.begin(folder, step)
        state = temporary / checkpoints.STATE
        if self.actors.kind == "lora":
            self.family.save_policy(self.actors, temporary)
        if self.reference_errors is not None:
            self.reference_errors.save()
        save_watch(state / WATCH, self.watch.seen, self.state)
        self.history.save(state / HISTORY)
        scaler = self.accelerator.scaler
        checkpoints.save_state(
            temporary,
            checkpoints.TrainingState(
                step=step,
                loss_scaler=scaler.state_dict() if scaler else None,
                precision=self.precision,
                vae_precision=self.vae_precision,
                is_compiled=self.is_compiled,
                batch_size=self.split.batch_size if self.finds_split else None,
            ),
        )
        manifest = checkpoints.new_manifest(
            step=step,
            kind=self.actors.kind,
            is_final=self.state.has_last_step,
            is_best=self.state.best is not None and self.state.best.step == step,
            result_step=self.state.result_step,
            spec=self.spec.model_dump(mode="json"),
            spec_sha256=self.spec.sha256(),
            base_model_sha256=self.base_model_sha256,
            folder_sha256=self.folder_sha256,
            dataset_sha256=self.dataset_sha256,
            versions=versions(),
        )
        return Snapshot(
            temporary,
            manifest,
            {name: checkpoints.on_host(held) for name, held in tensors.items()},
            self.family,
            self.actors.on_host() if self.actors.kind == "full" else None,
        )

    def restore(self, folder: Path) -> None:
        """Put everything back as it was when `folder` was saved.

        Raises `CheckpointError` when the model's weights or the data have changed since.
        """
        manifest = checkpoints.read_manifest(folder)
        if (manifest.base_model_sha256, manifest.dataset_sha256) != (self.base_model_sha256, self.dataset_sha256):
            raise CheckpointError(
                "inputs_changed",
                f"{folder.name} was made with other model weights or other data: it cannot be continued",
            )
        state = folder / checkpoints.STATE
        self.family.load_policy(self.actors, folder)
        checkpoints.load_optimizer_tensors(
            self.optimizer, list(self.actors.trainable()), checkpoints.load_tensors(state / "optimizer.safetensors")
        )
        self.reference.load_state_dict(checkpoints.load_tensors(state / "reference.safetensors"))
        self.actors.load_reference(checkpoints.load_tensors(state / "reference_weights.safetensors"))
        self.timesteps.load_state_dict(checkpoints.load_tensors(state / "timesteps.safetensors"))
        watched = load_watch(state / WATCH)
        self.watch.seen = watched.seen
        self.history.restore(state / HISTORY)
        saved = checkpoints.load_state(folder)
        self.state = watched.state_at(saved.step, self.spec.training.steps)
        if isinstance(self.method, Resumable):
            self.method.load_state_at(saved.step, checkpoints.load_tensors(state / "method.safetensors"))
        if self.spec.training.compile == "auto":
            self.is_compiled = saved.is_compiled
        if self.finds_split and saved.batch_size is not None:
            self.use_split(Split(saved.batch_size, self._examples_per_process // saved.batch_size))
        if self.accelerator.scaler is not None and saved.loss_scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.loss_scaler)

    def forget_findings(self) -> None:
        """Keep how far the run has got, and nothing of what guards and probes saw and decided."""
        self.watch.seen, step = Seen(), self.state.step
        self.state = RunState(total_steps=self.state.total_steps, step=step, saved_step=step)

    def draw(self, denoiser: torch.nn.Module, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """Images as the spec's evaluation wants them drawn."""
        return self.draw_by(self.family, denoiser, prompts, seeds)

    def draw_by(
        self, family: Family, denoiser: torch.nn.Module, prompts: Sequence[str], seeds: Sequence[int]
    ) -> Images:
        """The same of a denoiser of another run, which may read prompts in its own way."""
        evaluation = self.spec.evaluation
        return family.sample(
            denoiser,
            prompts,
            seeds,
            num_inference_steps=evaluation.num_inference_steps,
            guidance_scale=evaluation.guidance_scale,
            autocast=lambda: self.accelerator.autocast(),
        )
