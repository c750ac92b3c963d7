"""The report of a run: the aligned model against the one that it started from."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from alignment_core.events import FileRecord, Throughput, TimestepBin
from alignment_core.reports.base import ReportBase
from alignment_core.reports.comparison import Diversity, Drift, RewardComparison
from alignment_core.reports.intervals import Interval, IntervalMethod
from alignment_core.reports.weights import StartingPoint


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
    curves: list[Curve] = Field(default=[])
    timestep_tables: list[BinTable] = Field(default=[], description="The last of each split.")
    method: str | None = None
    reference: str | None = Field(default=None, description="How the reference moved: `frozen`, `hard_copy`, `ema` ...")
    reg_mode: str | None = Field(
        default=None, description="The regularisation that was active; null with a frozen reference, which needs none."
    )
    warnings: list[RunWarning] = Field(default=[])
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
