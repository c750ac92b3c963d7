"""Where contenders draw: the machine, the judges and the plan of an evaluation, and one contender at a time in memory."""

import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from alignment_core.evaluation.compare import plan_comparison, seeds_of
from alignment_core.evaluation.draw_and_judge import PROMPT_FOLLOWING, DrawPlan, JudgedBatch, Judges, judged_batch
from alignment_core.evaluation.evaluate import choose_prompts
from alignment_core.evaluation.policy_drift import Conditioned
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event, PhaseDivided, PrecisionChosen
from alignment_core.families.family import Family
from alignment_core.families.file_hashes import FileHashes
from alignment_core.load.accelerator import accelerator_on
from alignment_core.load.contender import load_contender
from alignment_core.load.judging import build_judges
from alignment_core.load.online import sampling_grid
from alignment_core.load.precision import DTYPES, most_exact, prediction_errors
from alignment_core.load.score_names import reward_sha256
from alignment_core.protocols import Sampler
from alignment_core.ranks import Ranks, ranks_of
from alignment_core.reports import ContenderFacts, ScoredBy
from alignment_core.shapes import Images, Latents, Times
from alignment_core.spec import CandidatesSpec, Contest, EvaluationSpec, reward_name
from alignment_core.spec.prompts import listed
from alignment_core.spec.training import Precision
from alignment_core.training.micro_batch import free_memory
from alignment_core.training.run import precision_of

ON_A_CPU, ON_A_GPU = 8, 32  # images at once, to begin with

T = TypeVar("T")


@dataclass(frozen=True)
class OnStage:
    """A contender in memory."""

    family: Family
    facts: ContenderFacts
    sample: Sampler

    def conditioned(self, prompts: Sequence[str], accelerator: Accelerator) -> Conditioned:
        """What it predicts for these prompts, without guidance, in float32."""

        def predict(x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
            with accelerator.autocast():
                return self.family.predict(self.family.denoiser, x_t, times, conditioning).float()

        return Conditioned(predict, self.family.sampling_conditioning(prompts))


@dataclass
class Fitting:
    """How many images are drawn at once: halved for as long as they do not fit, where that may be chosen."""

    size: int
    is_free: bool

    def over(self, items: Sequence[T], work: Callable[[Sequence[T]], JudgedBatch]) -> Iterator[JudgedBatch]:
        """`work` of all items, in order, as many at a time as fit."""
        start = 0
        while start < len(items):
            part = items[start : start + self.size]
            try:
                found = work(part)
            except torch.OutOfMemoryError:
                if not self.is_free or self.size == 1:
                    raise
                found = None
            if found is None:  # outside of the handler, whose traceback holds what does not fit
                self.size = max(1, self.size // 2)
                free_memory()
                continue
            start += len(part)
            yield found


@dataclass
class Stage:
    """Everything that all contenders have in common. The precision is that of `accelerator`."""

    spec: Contest
    here: Contest
    cache_dir: Path
    accelerator: Accelerator
    ranks: Ranks
    plan: DrawPlan
    judges: Judges
    scored_by: tuple[ScoredBy, ...]
    fitting: Fitting = field(init=False)
    scoring_seconds: float = field(default=0.0, init=False)  # of this process, since they were told last

    def __post_init__(self) -> None:
        asked = self.spec.sampling.batch_size
        likely = ON_A_GPU if self.accelerator.device.type == "cuda" else ON_A_CPU
        self.fitting = Fitting(likely if asked == "auto" else asked, asked == "auto")

    @property
    def num_images(self) -> int:
        """Of all contenders."""
        return len(self.spec.contenders) * self.plan.num_images

    @property
    def precision(self) -> Precision:
        return precision_of(self.accelerator)

    @property
    def card(self) -> str:
        """What draws, by the name that its maker gave it."""
        return card_of(self.accelerator)

    @contextmanager
    def contender(self, name: str) -> Iterator[OnStage]:
        """The contender of this name, as long as it is needed; before and after it there is none in memory."""
        (index,) = [index for index, one in enumerate(self.spec.contenders) if one.name == name]
        with self.accelerator.main_process_first():  # the others find an unpacked file in the cache
            family, facts = load_contender(
                self.spec.contenders[index],
                self.here.contenders[index],
                device=self.accelerator.device,
                dtype=DTYPES[self.precision],
                cache_dir=self.cache_dir,
            )
        sampling = self.spec.sampling
        sampling_grid(family, sampling.num_inference_steps, 0.0, "sampling.num_inference_steps")

        def sample(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
            return family.sample(
                family.denoiser,
                prompts,
                seeds,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                autocast=lambda: self.accelerator.autocast(),
            )

        try:
            yield OnStage(family, facts, sample)
        finally:
            del family, sample
            free_memory()

    def drawn(self, contender: OnStage, positions: Sequence[int]) -> list[JudgedBatch]:
        """The images of these prompts, all seeds of each, with their scores."""
        return self.drawn_of(
            contender, [(self.plan.prompts[one], seed) for one in positions for seed in self.plan.seeds[one]]
        )

    def drawn_of(self, contender: OnStage, items: Sequence[tuple[str, int]]) -> list[JudgedBatch]:
        """The images of these prompts and seeds, with their scores."""

        def work(part: Sequence[tuple[str, int]]) -> JudgedBatch:
            batch = ([prompt for prompt, _ in part], [seed for _, seed in part])
            judged = judged_batch(contender.facts.name, contender.sample, self.judges.by_name, batch)
            self.scoring_seconds += judged.scoring_seconds
            return judged

        return list(self.fitting.over(items, work))

    def divided(self) -> PhaseDivided:
        """What of the sampling went into scoring since it was told last."""
        seconds, self.scoring_seconds = self.scoring_seconds, 0.0
        return PhaseDivided(phase="sampling", seconds={"scoring": round(seconds, 3)})


def card_of(accelerator: Accelerator) -> str:
    """The GPU's name, or the processor's."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return processor()


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def set_stage(
    spec: Contest,
    here: Contest,
    cache_dir: Path,
    accelerator: Accelerator,
    known: Precision | None,
    *,
    remembers_scores: bool,
) -> Generator[Event, None, Stage]:
    """Load the judges, and find the precision where nothing says it: `known` is that of what has been drawn already.

    `here` is the spec with every name in it replaced by its place, and its prompts in place of where they are. A judge that
    remembers is not asked twice for the same images, in this evaluation or in another.
    Raises `AlignmentError` for a prompt that a judge cannot score, before anything is drawn.
    """
    hashes = FileHashes(cache_dir / "hashes")
    asked = EvaluationSpec(rewards=here.rewards, prompt_following=here.prompt_following)
    built = build_judges(asked, accelerator.device, cache_dir if remembers_scores else None)
    judges = Judges(built.rewards, built.prompt_following)
    scored_by = [ScoredBy(name=reward_name(one), sha256=reward_sha256(one, "score", hashes)) for one in here.rewards]
    if here.prompt_following is not None:
        known_by = reward_sha256(here.prompt_following, "prompt_following", hashes)
        scored_by.append(ScoredBy(name=PROMPT_FOLLOWING, sha256=known_by))
    stage = Stage(
        spec=spec,
        here=here,
        cache_dir=cache_dir,
        accelerator=accelerator,
        ranks=ranks_of(accelerator.process_index, accelerator.num_processes),
        plan=plan_of(here),
        judges=judges,
        scored_by=tuple(scored_by),
    )
    rehearse(judges.by_name, stage.plan.prompts, ON_A_CPU, field="prompts")
    if spec.sampling.precision == "auto" and accelerator.device.type == "cuda":
        stage.accelerator = yield from _in_precision(stage, known)
    return stage


def plan_of(spec: Contest) -> DrawPlan:
    """What every contender draws: seeds follow from the spec's and the places of the prompts alone."""
    listing = listed(spec.prompts)
    prompts = choose_prompts(listing, len(listing))
    if isinstance(spec, CandidatesSpec):
        own = seeds_of(spec.seed, len(prompts), spec.num_seeds) if spec.seeds is None else [spec.seeds] * len(prompts)
        return DrawPlan(prompts, own, batch_size=1)
    return plan_comparison(
        prompts, seeds_per_prompt=spec.seeds_per_prompt, batch_size=1, grid_prompts=spec.grid_prompts, seed=spec.seed
    )


def accelerator_for(spec: Contest, precision: Literal["auto"] | Precision) -> Accelerator:
    """What an evaluation draws on."""
    resources = spec.resources
    return accelerator_on(resources.device, precision, resources.num_cpu_threads, field="sampling.precision")


def _in_precision(stage: Stage, known: Precision | None) -> Generator[Event, None, Accelerator]:
    """The half precision in which the anchor's predictions are nearest to float32; all processes take the first one's word."""
    if known is None:
        with stage.contender(stage.spec.anchor_name) as anchor:
            family = anchor.family
            errors = stage.ranks.everywhere(lambda: prediction_errors(family))[0]
        known = most_exact(errors)
        numbers = {half: error if error < float("inf") else None for half, error in errors.items()}
        yield PrecisionChosen(precision=known, prediction_errors=dict(numbers))
    return stage.accelerator if known == stage.precision else accelerator_for(stage.spec, known)
