"""The report of an evaluation of any models, and of looking at it once more."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.reports.base import ReportBase
from alignment_core.reports.comparison import Diversity, RewardComparison
from alignment_core.reports.evaluation import EvaluationReport, HumanComparison, RunWarning
from alignment_core.reports.intervals import IntervalMethod


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
