"""What a probe found, as data small enough to be kept in a checkpoint."""

from pydantic import BaseModel, ConfigDict, Field


class Line(BaseModel):
    """One score on the held-out prompts of a probe; the gain and its interval are against the initial model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    gain: float
    low: float
    high: float
    spread: float = Field(
        description="Standard deviation of the scores of one model's images: root mean variance of both."
    )


class ProbeFigures(BaseModel):
    """Every score of one probe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    num_prompts: int
    rewards: dict[str, Line]
    prompt_following: Line | None
    diversity: float | None
    base_diversity: float | None

    @property
    def diversity_ratio(self) -> float | None:
        """Diversity over the initial model's; None with one seed a prompt, or where that draws one image only."""
        if self.diversity is None or not self.base_diversity:
            return None
        return self.diversity / self.base_diversity

    def metrics(self) -> dict[str, float]:
        """The figures under the names of the event `probe_completed`."""
        lines = dict(self.rewards)
        if self.prompt_following is not None:
            lines["prompt_following"] = self.prompt_following
        figures = {name: line.mean for name, line in lines.items()} | {
            f"{n}_gain": line.gain for n, line in lines.items()
        }
        if self.diversity is not None:
            figures["diversity"] = self.diversity
        if self.diversity_ratio is not None:
            figures["diversity_ratio"] = self.diversity_ratio
        return figures
