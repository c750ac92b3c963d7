"""What preflight says of a data set."""

from typing import Literal

from pydantic import Field

from alignment_core.reports.base import ReportBase


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
