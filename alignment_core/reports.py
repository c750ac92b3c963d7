"""Reports: what preflight says of a dataset and what evaluation says of a model, as pure data.

They are stored as JSON and served by the API, so they live apart from the code that fills them in.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alignment_core.events import FileRecord, Throughput, TimestepBin


class ReportBase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


# --- datasets ------------------------------------------------------------------------------------------------------


class RowProblem(ReportBase):
    """What is wrong with one row, and with which of its images where it is an image."""

    row: int
    message: str


class DatasetProblem(ReportBase):
    """One kind of problem, its rows, and what was expected instead."""

    code: str = Field(description="Stable, such as `undecodable_image` or `contradictory_pairs`.")
    severity: Literal["error", "warning"] = Field(description="An error means that the rows cannot be trained on.")
    message: str
    count: int
    rows: list[int] = Field(description="Row numbers, counted from 1; the first 100.")
    details: list[RowProblem] = Field(
        default_factory=list,
        description="Each row's own reason, for the rows in `rows`; empty where `message` holds for all of them.",
    )


# Bins of `shorter_sides` begin here: half of every usual resolution is among them.
SIDES = (0, 8, 16, 24, 32, 48, *range(64, 4097, 64))


def next_side(side: int) -> int:
    """Where the bin that begins at `side` ends."""
    return next((edge for edge in SIDES if edge > side), 2**31)


class DatasetReport(ReportBase):
    """What is in a preference dataset, before any GPU time is spent."""

    kind: Literal["pairs", "unpaired"] = Field(
        default="pairs", description="Rows of two images, or of one with a like or a dislike."
    )
    format: str = Field(
        max_length=40,
        description="The form of the files (`parquet`, `arrow`, `jsonl`, `json`, `csv`, `tsv`, `image_folder`), or the published "
        "schema that was recognised (`pick_a_pic`, `rapidata`, `hpdv2`, `hpdv3`, `image_reward_db`).",
    )
    num_rows: int
    num_usable_rows: int = Field(description="Rows that can be trained on, ties included.")
    num_groups: int
    num_unique_prompts: int
    num_empty_prompts: int
    num_ties: int
    num_soft_labels: int = Field(description="Rows whose label lies strictly between 0.5 and 1.")
    num_likes: int = Field(default=0, description="Unpaired rows with label 1.")
    num_dislikes: int = Field(default=0, description="Unpaired rows with label 0.")
    num_dropped_rows: int = Field(
        default=0,
        description="Rows with an error that were left out, as `on_bad_row: drop` asks; `problems` names the first 100 of a kind.",
    )
    num_long_prompts: int = Field(
        default=0,
        description="Rows whose prompt has more than 75 words and signs, of which each is a token or more: CLIP reads no further.",
    )
    num_swapped: int = Field(description="Rows whose images an importer swapped because the label was below 0.5.")
    chosen_first_share: float | None = Field(
        default=None,
        description="Share of decided rows whose first image won, in formats that have a first image; 0.5 is unbiased.",
    )
    image_sizes: dict[str, int] = Field(description="`WIDTHxHEIGHT` to the number of images, the ten most frequent.")
    shorter_sides: dict[str, int] = Field(
        default_factory=dict,
        description="Images by their shorter side, in pixels: the number of those from this side up to the next one named.",
    )
    size_bytes: int
    content_sha256: str
    problems: list[DatasetProblem]

    def num_below(self, side: int) -> int:
        """How many images are known to have a shorter side of less than `side` pixels."""
        edges = sorted(int(edge) for edge in self.shorter_sides)
        return sum(self.shorter_sides[str(edge)] for edge in edges if next_side(edge) <= side)

    @property
    def is_usable(self) -> bool:
        return self.num_usable_rows > 0 and not any(problem.severity == "error" for problem in self.problems)


# --- evaluation ----------------------------------------------------------------------------------------------------


IntervalMethod = Literal["percentile", "bca"]
"""Percentile bootstrap, or bias-corrected and accelerated (Efron 1987)."""


class Interval(ReportBase):
    low: float
    high: float
    confidence: float


class RewardComparison(ReportBase):
    """One reward, policy against base on the same prompts and seeds. Gains are policy minus base."""

    name: str
    trained: bool = Field(default=False, description="Whether the method optimised it; preference data are no reward.")
    base_mean: float
    policy_mean: float
    gain: float
    gain_interval: Interval = Field(description="Bootstrap over prompts, by the report's `interval_method`.")
    p_value: float | None = Field(
        default=None,
        description="Two-sided, of a gain of zero: paired t-test over the prompts' mean gains, not corrected for several "
        "rewards. Null with one prompt, or where every prompt gains the same.",
    )
    holm_p_value: float | None = Field(
        default=None,
        description="`p_value` after Holm's correction over the contenders of an evaluation that has more than two; null elsewhere.",
    )
    effect_size: float | None = Field(
        default=None,
        description="Gain in standard deviations of the base images' scores, so that rewards compare; null where those "
        "scores are all equal.",
    )
    win_rate: float = Field(
        description="Share of (prompt, seed) pairs where the policy scores higher; ties count half."
    )
    bootstrap_interval: Interval = Field(description="Of `win_rate`: bootstrap over prompts, by `interval_method`.")
    prompts_won: float | None = Field(
        default=None, description="Share of prompts whose mean score over the seeds is higher; ties count half."
    )
    wilson_interval: Interval | None = Field(
        default=None, description="Of `prompts_won`: Wilson's score interval. Null in reports of format 1."
    )
    num_ties: int


class Diversity(ReportBase):
    """Mean distance of two images of one prompt: root mean square pixel difference in [0, 1]."""

    base: float
    policy: float
    change_interval: Interval | None = Field(
        default=None, description="Of policy minus base: bootstrap over prompts, by `interval_method`."
    )


class DriftBin(ReportBase):
    first_timestep: int
    last_timestep: int
    eps_dist: float


class Drift(ReportBase):
    """How far the policy is from the base model, on the images that the policy drew."""

    eps_dist: float = Field(
        description="Mean squared distance of the two predictions, without guidance, at noised images of the policy."
    )
    by_timestep: list[DriftBin] = Field(description="The same in equal bins over t, the noisiest first.")
    num_draws: int = Field(description="Noisy images measured at, spread evenly over the bins.")
    relative_weight_change: float | None = Field(
        description="Norm of the change of the trained weights over the norm of those weights in the initial model; LoRA: "
        "of s B A over the adapted weights. Null in an evaluation, whose models need not come from each other."
    )


class WeightsReport(ReportBase):
    """What a file of weights holds, as far as it can be told without the model that it is for."""

    holds: Literal["lora", "denoiser"] = Field(
        default="lora",
        description="A LoRA, or a whole U-Net or transformer for an evaluation, which has no ranks and no alphas.",
    )
    format: Literal["peft", "diffusers", "kohya"] = Field(description="Whose names the file has.")
    num_layers: int
    ranks: list[int] = Field(description="Which ranks its layers have, the lowest first.")
    alphas: list[float] = Field(description="Which alphas its layers have; that of a layer without one is its rank.")
    changes_text_encoder: bool = Field(description="Whether it is of a text encoder too.")
    says_alpha: bool = Field(
        default=True,
        description="Whether its alpha is known: a file of PEFT's says it in the `adapter_config.json` beside it alone, and a job "
        "says it in `start.alpha` then.",
    )


class LoraReport(WeightsReport):
    """The same with what is looked at before a run, and too long to show."""

    layers: dict[str, tuple[int, int]] = Field(
        default={}, description="Inputs and outputs of each layer, by the name that the file has for it."
    )
    shapes: dict[str, tuple[int, ...]] = Field(
        default={},
        description="Of a whole denoiser: the shape of each linear layer's and convolution's weight, by name.",
    )


class StartingPoint(ReportBase):
    """The LoRA of others that a run started from, and what became of it."""

    lora: str = Field(description="The upload's or checkpoint's id, the repository and file, or the path.")
    lora_sha256: str
    format: Literal["peft", "diffusers", "kohya"] = Field(description="Whose names its file has.")
    num_layers: int
    mode: Literal["merge", "train"] = Field(description="Added to the model's weights, or trained further.")
    initial: Literal["base", "lora"] = Field(description="Whether the initial model, the one compared with, has it.")


class Subject(ReportBase):
    """What the report is of, in its owner's words."""

    job_id: str | None = None
    job_name: str | None = None
    model: str = Field(description="The initial model: its name in the catalog, repository and commit, or folder.")
    dataset: str | None = Field(default=None, description="The training data's name or id; null for online methods.")
    start: StartingPoint | None = Field(
        default=None, description="The LoRA that training started from; null without one."
    )
    steps: int = Field(description="Optimiser steps behind the aligned model.")
    written_at: datetime


class ComparedModel(ReportBase):
    """One side of the comparison."""

    label: str = Field(description="For people: `initial model`, `step 120`.")
    step: int | None = Field(description="Optimiser steps; null for the initial model.")
    spec_sha256: str | None = Field(description="Of the run that trained it; null for the initial model.")
    files: list[FileRecord] = Field(
        default=[], description="Its weight files with their hashes; the initial model's are `base_model_sha256`."
    )


class Curve(ReportBase):
    """A metric over the run, at most 500 points; a point is the mean over the steps since the point before."""

    split: Literal["training", "validation", "held_out"]
    metric: str
    steps: list[int] = Field(description="The last step of each point.")
    values: list[float]


class BinTable(ReportBase):
    """A by-timestep table of the run, as in the event `timestep_table`."""

    split: Literal["training", "validation"]
    since_step: int
    step: int
    bins: list[TimestepBin] = Field(description="The noisiest first.")


class RunWarning(ReportBase):
    code: str
    message: str
    step: int | None = None


class ImageScores(ReportBase):
    """The scores of one prompt and seed, so that every number in the report can be recomputed."""

    prompt: str
    seed: int
    base: dict[str, float]
    policy: dict[str, float]


class HumanComparison(ReportBase):
    """Two models judged blind by people, on the same prompts and seeds, left and right shuffled."""

    labeling_id: str
    base: str = Field(description="The contender that the other is compared with.")
    policy: str
    num_pairs: int = Field(description="Pairs that anybody judged.")
    num_votes: int
    num_annotators: int
    won: int = Field(description="Pairs where most people prefer the policy's image.")
    lost: int
    ties: int
    win_rate: float = Field(description="Share of pairs that the policy won; ties count half.")
    wilson_interval: Interval = Field(description="Of `win_rate`: Wilson's score interval over pairs.")


class EvaluationReport(ReportBase):
    """Does the aligned model beat the one it started from, at what price, and how was it made?

    Reads reports of format 1 too; what those did not say is null or empty.
    """

    format_version: Literal[2] = 2
    subject: Subject | None = Field(default=None, description="Null in reports of before it was told.")
    step: int
    base: ComparedModel
    policy: ComparedModel
    num_prompts: int
    seeds_per_prompt: int
    num_inference_steps: int
    guidance_scale: float
    primary_reward: str | None = Field(description="The first reward of the spec; it decides `verdict`.")
    verdict: Literal["improved", "not_improved", "worse", "unknown"] = Field(
        description="`improved`: the primary gain's interval lies above zero; `worse`: below; `unknown`: no rewards, or a "
        "single prompt, which has no interval."
    )
    rewards: list[RewardComparison]
    prompt_following: RewardComparison | None
    interval_method: IntervalMethod = Field(
        default="percentile",
        description="Of every bootstrap interval: `percentile` in the reports of jobs, `bca` in evaluations.",
    )
    diversity: Diversity | None = Field(description="Null with one seed a prompt.")
    human: list[HumanComparison] = Field(
        default=[], description="Blind comparisons by people that name this run; a service adds them when it is read."
    )
    drift: Drift | None = None
    curves: list[Curve] = []
    timestep_tables: list[BinTable] = Field(default=[], description="The last of each split.")
    method: str | None = None
    reference: str | None = Field(default=None, description="How the reference moved: `frozen`, `hard_copy`, `ema` ...")
    reg_mode: str | None = Field(
        default=None, description="The regularisation that was active; null with a frozen reference, which needs none."
    )
    warnings: list[RunWarning] = []
    selected_by: Literal["last_step", "held_out_reward", "rollback"] | None = Field(
        default=None, description="Why the checkpoint of `step` is the run's result."
    )
    last_step: int | None = Field(default=None, description="Optimiser steps that the run made.")
    stopped_by: str | None = Field(default=None, description="Code of the guard that ended training, if one did.")
    seed: int | None = None
    spec: dict[str, Any] | None = Field(default=None, description="The resolved spec of the run.")
    spec_sha256: str
    dataset_sha256: str | None = Field(default=None, description="Of the training data, or of the online prompts.")
    base_model_sha256: str
    versions: dict[str, str]
    device: str | None = None
    precision: str | None = None
    logit_error: float | None = Field(
        default=None,
        description="What half precision took from the exactness of the first batch's logits, root mean square.",
    )
    throughput: Throughput | None = Field(
        default=None,
        description="Of the last steps of training; null where the report's model was not trained just before.",
    )
    elapsed_seconds: float
    images: list[ImageScores]

    @model_validator(mode="before")
    @classmethod
    def _reads_format_1(cls, value: Any) -> Any:
        return _from_format_1(value) if isinstance(value, dict) and value.get("format_version") == 1 else value


def _from_format_1(report: dict[str, Any]) -> dict[str, Any]:
    """Format 1 named neither side, and its one interval of the win rate was Wilson's with one seed a prompt."""
    initial = {"label": "initial model", "step": None, "spec_sha256": None}
    policy = {"label": f"step {report['step']}", "step": report["step"], "spec_sha256": report["spec_sha256"]}
    judge = report["prompt_following"]
    return {
        **report,
        "format_version": 2,
        "base": initial,
        "policy": policy,
        "rewards": [_line_from_format_1(line) for line in report["rewards"]],
        "prompt_following": None if judge is None else _line_from_format_1(judge),
    }


def _line_from_format_1(line: dict[str, Any]) -> dict[str, Any]:
    return {("bootstrap_interval" if name == "win_rate_interval" else name): value for name, value in line.items()}


# --- evaluations of any models -------------------------------------------------------------------------------------


class ContenderFacts(ReportBase):
    """A model of an evaluation, and what it is known by."""

    name: str
    model: str = Field(description="The base model: its name in the catalog, repository, folder or checkpoint.")
    denoiser: str | None = Field(
        description="The file that its U-Net or transformer is from, if that is not the base model's."
    )
    lora: str | None = Field(description="The LoRA that was added.")
    strength: float | None = Field(description="Factor of the LoRA; null without one.")
    sha256: str = Field(
        description="Of everything it draws with: the base model's files, the denoiser's, the LoRA's at its strength."
    )
    base_model_sha256: str = Field(description="Of every weight and config file of the base model.")
    denoiser_sha256: str | None
    lora_sha256: str | None
    family: str
    resolution: int = Field(description="Pixels of the side that it draws.")
    prediction_type: str
    space_sha256: str = Field(
        description="Of the autoencoder, the noise levels and what is predicted of them: drift is told between contenders that "
        "have it in common."
    )


class StartingNoise(ReportBase):
    """How the noise that an image begins from is made of its seed: `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`."""

    distribution: Literal["standard_normal"] = "standard_normal"
    generator: Literal["torch_cpu"] = "torch_cpu"
    dtype: Literal["float32"] = "float32"
    shape: list[int] = Field(description="Of the latents of one image: channels, height, width.")


class ImageRecipe(ReportBase):
    """All that an image follows from, beside its prompt and its seed."""

    contender: ContenderFacts
    noise: StartingNoise
    num_inference_steps: int
    guidance_scale: float
    precision: str
    card: str
    versions: dict[str, str]


class ScoredBy(ReportBase):
    """A judge of an evaluation, and what it is known by."""

    name: str = Field(description="The reward's name, or `prompt_following`.")
    sha256: str = Field(description="Of its settings and every file that it reads; not of its name.")


class Standing(ReportBase):
    """A contender against the anchor: what follows from the table of scores alone."""

    contender: str
    verdict: Literal["improved", "not_improved", "worse", "unknown"]
    rewards: list[RewardComparison]
    prompt_following: RewardComparison | None
    diversity: Diversity | None


class Standings(ReportBase):
    """All contenders against the anchor."""

    anchor: str
    best: str | None = Field(
        description="The contender with the largest gain in the first reward among those that are better than the anchor by the "
        "interval and, where there are several, by the corrected test; null where none is."
    )
    standings: list[Standing]


class ProofReport(ReportBase):
    """Which of these models is better on the same prompts and seeds, by how much, and how was that found?"""

    format_version: Literal[1] = 1
    subject_id: str | None = Field(default=None, description="Of the evaluation, where a service ran it.")
    name: str | None = None
    anchor: str
    best: str | None = Field(description="As in the standings: named only if the corrected test says so.")
    contenders: list[ContenderFacts]
    judges: list[ScoredBy]
    comparisons: list[EvaluationReport] = Field(
        description="Each contender but the anchor as the report of a job has it, the anchor as its base. Their `images` are empty: "
        "every score is in `scores.parquet`."
    )
    human: list[HumanComparison] = Field(
        default=[],
        description="Blind comparisons by people that name this evaluation; a service adds them when it is read.",
    )
    num_prompts: int
    seeds_per_prompt: int
    num_images: int
    prompts_sha256: str = Field(description="Of the prompts in their order.")
    scores_sha256: str = Field(description="Of the file `scores.parquet`.")
    spec: dict[str, Any]
    spec_sha256: str
    seed: int
    confidence: float
    bootstrap_resamples: int
    interval_method: IntervalMethod
    precision: str
    cards: list[str] = Field(description="What drew the images: several where another machine went on.")
    versions: dict[str, str]
    warnings: list[RunWarning]
    elapsed_seconds: float = Field(description="Of the attempt that wrote the report.")
    written_at: datetime


class ScoreDifference(ReportBase):
    name: str
    num_equal: int
    largest: float = Field(description="Of the differences between what was scored then and now.")


class VerificationReport(ReportBase):
    """Some of an evaluation's images, drawn and scored once more."""

    spec_sha256: str
    scores_sha256: str = Field(description="Of the `scores.parquet` that was looked into.")
    outcome: Literal["identical", "close", "different"] = Field(
        description="`identical`: every image and score to the bit; `close`: as another card or version rounds, every score within "
        "`tolerance`; `different`: models, rewards or scores are others."
    )
    tolerance: float = Field(
        description="The largest difference called close, in standard deviations of the reward's scores."
    )
    num_images: int
    num_equal_images: int
    scores: list[ScoreDifference]
    changed: list[str] = Field(description="Contenders and judges whose files are not those of then.")
    prompts: list[str]
    precision: str
    card: str
    cards_then: list[str]
    versions: dict[str, str]
    versions_then: dict[str, str]
    elapsed_seconds: float
    written_at: datetime


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of p-values that are looked at together (1979); one that there is none of is none after it.

    The smallest times their number, the next times one less, and so on; none below one that comes before it.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return corrected
