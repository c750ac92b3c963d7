"""What is tried before a run: one real step, a checkpoint written and read again, a picture and its rewards.

All of it happens on a run of its own, with a model loaded for it, a few rows of the data and a folder of its own, and is thrown away: so
the run that follows has the bits that it has without. What cannot fit, or cannot be judged, fails here and not after hours.
"""

import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError, CheckpointError
from alignment_core.evaluation.rehearsal import judging, reward_broken
from alignment_core.events import Event, PrecisionChosen, StartCheck, StartChecked, VaePrecisionChosen
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.online import OnlineMethod
from alignment_core.load.run import load_run
from alignment_core.load.sample import Sample
from alignment_core.protocols import RewardModel
from alignment_core.shapes import Images
from alignment_core.shares import local
from alignment_core.spec import JobSpec, OnlineMethodSpec, reward_name
from alignment_core.spec.counted import counted
from alignment_core.spec.first_step import first_step_of
from alignment_core.spec.places import Sources
from alignment_core.spec.training import Precision
from alignment_core.training.micro_batch import free_memory
from alignment_core.training.run import Run
from alignment_core.training.steps import first_steps

SCRATCH = "checking"
GIB, MIB = 2**30, 2**20
PICTURE_SEED = 0


def check_start(
    spec: JobSpec,
    sources: Sources,
    cache_dir: Path,
    workdir: Path,
    precision: Precision | None,
    vae_precision: Precision | None,
    resumed: Path | None,
) -> Generator[Event, None, tuple[Precision, Precision]]:
    """Try everything that the run of a resolved spec will do; returns the precisions that the run has, of networks and of encoded images.

    Raises the `AlignmentError` that the run would raise later, or that a reward fails in its own way with.
    """
    scratch, started = workdir / SCRATCH, time.monotonic()
    short = first_step_of(spec)
    accelerator = new_accelerator(short, precision)
    with accelerator.main_process_first():
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        loading = load_run(
            short,
            sources,
            accelerator,
            cache_dir,
            precision,
            Sample(short.examples_per_step, scratch / "encoded"),
            vae_precision,
        )
        run = yield from _quietly(loading)
        if resumed:
            run.restore(resumed)
        trial = Trial(run, scratch, {"load": time.monotonic() - started})
        checks = list(trial.checks())
        yield StartChecked(
            checks=checks,
            seconds=time.monotonic() - started,
            checkpoint_bytes=trial.checkpoint_bytes,
            peak_device_gib=_peak_gib(run),
        )
        return run.precision, run.vae_precision
    finally:
        with accelerator.main_process_first():
            shutil.rmtree(scratch, ignore_errors=True)


def forget_trial() -> None:
    """Give back what the thrown away run took, and measure peaks anew."""
    free_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _quietly(loading: Generator[Event, None, Run]) -> Generator[Event, None, Run]:
    """Load, and tell of what the run itself will not find out again, the precisions."""
    while True:
        try:
            event = next(loading)
        except StopIteration as loaded:
            return loaded.value
        if isinstance(event, PrecisionChosen | VaePrecisionChosen):
            yield event


@dataclass
class Trial:
    """A run that is thrown away, and what was found out by it."""

    run: Run
    scratch: Path
    took: dict[str, float]
    checkpoint_bytes: int = field(default=0, init=False)

    def checks(self) -> Iterator[StartCheck]:
        """Each check once it has passed."""
        run = self.run
        num = run.spec.examples_per_step
        yield StartCheck(
            check="load", seconds=self.took["load"], detail=f"the model, and {counted(num, 'example')} of the data"
        )
        before = fingerprint(run)
        with self._timed("save"):
            folder = run.save(self.scratch / "checkpoints")
        with self._timed("step"):
            for _ in first_steps(run, 1):
                pass
        yield StartCheck(check="step", seconds=self.took["step"], detail=f"one step of {counted(num, 'example')}")
        with self._timed("read"):
            run.restore(folder)
        _refuse_altered(run, before, fingerprint(run))
        self.checkpoint_bytes = sum(file.size_bytes for file in checkpoints.read_manifest(folder).files)
        detail = f"{self.checkpoint_bytes / MIB:.1f} MiB written and read, equal to the bit"
        yield StartCheck(check="checkpoint", seconds=self.took["save"] + self.took["read"], detail=detail)
        yield from self._judged()

    def _judged(self) -> Iterator[StartCheck]:
        run, prompt = self.run, _prompt_of(self.run)
        with self._timed("picture"):
            images = run.draw(run.actors.denoiser, [prompt], [PICTURE_SEED])
        if not images.isfinite().all():
            raise AlignmentError(
                "picture_not_finite",
                "the model draws pixels that are no numbers",
                hint="Try training.precision bf16 or fp32; if the model was started from weights, look at those.",
            )
        detail = f"{images.shape[-1]} x {images.shape[-2]} pixels in {run.spec.evaluation.num_inference_steps} steps"
        yield StartCheck(check="picture", seconds=self.took["picture"], detail=detail)
        judges = judges_of(run)
        if judges:
            with self._timed("reward"):
                found = {name: _score(name, judge, images, prompt) for name, judge in judges.items()}
            told = ", ".join(f"{name} {score:.4g}" for name, score in found.items())
            yield StartCheck(check="reward", seconds=self.took["reward"], detail=told)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        if self.run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self.took[name] = time.monotonic() - started


# --- a checkpoint ----------------------------------------------------------------------------------------------------


def fingerprint(run: Run) -> dict[str, Tensor]:
    """Copies of all that a step changes, as far as this process holds it."""
    state = {f"weights/{name}": local(value.detach()) for name, value in run.actors.trainable().items()}
    for part, held in run.tensors().items():
        state |= {f"{part}/{name}": value for name, value in held.items()}
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def _refuse_altered(run: Run, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    def differing() -> str | None:
        if before.keys() != after.keys():
            return min(before.keys() ^ after.keys())
        return next((name for name in before if not torch.equal(before[name], after[name])), None)

    name = next(filter(None, run.ranks.everywhere(differing)), None)
    if name is not None:
        raise CheckpointError(
            "checkpoint_not_exact",
            f"{name}: what was read of a checkpoint differs from what was saved",
            category="system",
        )


# --- rewards ---------------------------------------------------------------------------------------------------------


def judges_of(run: Run) -> dict[str, RewardModel]:
    """All that the run will have judged, by the names that its owner knows: to train on, to report and to choose by."""
    judges: dict[str, RewardModel] = {}
    if isinstance(run.spec.method, OnlineMethodSpec) and isinstance(run.method, OnlineMethod):
        names = map(reward_name, run.spec.method.trained_rewards)
        judges |= zip(names, run.method.setup.rewards, strict=True)
    judges |= run.rewards
    return judges if run.prompt_following is None else {**judges, "prompt_following": run.prompt_following}


def _score(name: str, judge: RewardModel, images: Images, prompt: str) -> float:
    with judging(name):
        scores = judge(images, [prompt])
    if scores.shape != (1,):
        raise reward_broken(name, f"it gave {tuple(scores.shape)} scores for one picture")
    return scores.item()


def _prompt_of(run: Run) -> str:
    own = run.method.setup.prompts if isinstance(run.method, OnlineMethod) else ()
    return next(iter(run.evaluation_prompts or own), "")


def _peak_gib(run: Run) -> float | None:
    device = run.accelerator.device
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
