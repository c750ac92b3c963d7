"""Reports: what preflight says of a dataset and what evaluation says of a model, as pure data.

They are stored as JSON and served by the API, so they live apart from the code that fills them in.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ReportBase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


# --- datasets ------------------------------------------------------------------------------------------------------


class DatasetProblem(ReportBase):
    """One kind of problem, its rows, and what was expected instead."""

    code: str = Field(description="Stable, such as `undecodable_image` or `contradictory_pairs`.")
    severity: Literal["error", "warning"] = Field(description="An error means that the rows cannot be trained on.")
    message: str
    count: int
    rows: list[int] = Field(description="Row numbers, counted from 1; the first 100.")


class DatasetReport(ReportBase):
    """What is in a preference dataset, before any GPU time is spent."""

    format: Literal["parquet", "jsonl", "pick_a_pic"]
    num_rows: int
    num_usable_rows: int = Field(description="Rows that can be trained on, ties included.")
    num_groups: int
    num_unique_prompts: int
    num_empty_prompts: int
    num_ties: int
    num_soft_labels: int = Field(description="Rows whose label lies strictly between 0.5 and 1.")
    num_swapped: int = Field(description="Rows whose images an importer swapped because the label was below 0.5.")
    chosen_first_share: float | None = Field(
        default=None,
        description="Share of decided rows whose first image won, in formats that have a first image; 0.5 is unbiased.",
    )
    image_sizes: dict[str, int] = Field(description="`WIDTHxHEIGHT` to the number of images, the ten most frequent.")
    size_bytes: int
    content_sha256: str
    problems: list[DatasetProblem]

    @property
    def is_usable(self) -> bool:
        return self.num_usable_rows > 0 and not any(problem.severity == "error" for problem in self.problems)


# --- evaluation ----------------------------------------------------------------------------------------------------


class Interval(ReportBase):
    low: float
    high: float
    confidence: float


class RewardComparison(ReportBase):
    """One reward, policy against base on the same prompts and seeds. Gains are policy minus base."""

    name: str
    base_mean: float
    policy_mean: float
    gain: float
    gain_interval: Interval = Field(description="Bootstrap over prompts (percentile).")
    win_rate: float = Field(
        description="Share of (prompt, seed) pairs where the policy scores higher; ties count half."
    )
    win_rate_interval: Interval = Field(description="Bootstrap over prompts; Wilson with one seed a prompt.")
    num_ties: int


class Diversity(ReportBase):
    """Mean distance of two images of one prompt: root mean square pixel difference in [0, 1]."""

    base: float
    policy: float


class ImageScores(ReportBase):
    """The scores of one prompt and seed, so that every number in the report can be recomputed."""

    prompt: str
    seed: int
    base: dict[str, float]
    policy: dict[str, float]


class EvaluationReport(ReportBase):
    """Does the aligned model beat the one it started from?"""

    format_version: Literal[1] = 1
    step: int
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
    diversity: Diversity | None = Field(description="Null with one seed a prompt.")
    spec_sha256: str
    base_model_sha256: str
    versions: dict[str, str]
    elapsed_seconds: float
    images: list[ImageScores]
