"""What the rest of Attune asks of a method: its spec answers, so that nobody asks which method it is. Pure data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from alignment_core.spec.base import Spec
from alignment_core.spec.rewards import RewardSpec
from alignment_core.spec.sources import DatasetSpec

LearnsFrom = Literal["pairs", "images", "rewards"]
Signal = Literal["margin", "advantage"]
AdapterType = Literal["lora", "full"]

LORA_HIGH = 5e-3  # ten times the highest published: the default of diffusers' Diffusion-DPO scripts, 5e-4
BATCH_SIZE = 4


@dataclass(frozen=True)
class Recipe:
    """A learning rate with what it was published with.

    `high` is where a rate is warned of. Both are for one example of an update where `follows_batch`, and then multiplied by the
    effective batch.
    """

    rate: float
    high: float
    source: str
    warmup_steps: int = 0
    follows_batch: bool = False

    def learning_rate(self, examples_per_step: int) -> float:
        return self.rate * examples_per_step if self.follows_batch else self.rate

    def high_learning_rate(self, examples_per_step: int) -> float:
        return self.high * examples_per_step if self.follows_batch else self.high

    def source_for(self, examples_per_step: int) -> str:
        """The source of the learning rate, as a sentence's end."""
        if not self.follows_batch:
            return self.source
        return f"{self.source}: {self.rate:g} x {examples_per_step} examples an update"

    def warmup_within(self, steps: int) -> int:
        """The published warm-up, or in a short run its first quarter: Diffusion-DPO warms up over 500 of 2000 steps."""
        return min(self.warmup_steps, steps // 4)


Recipes = Mapping[AdapterType, Recipe]


class MethodBase(Spec):
    """Base of every method's spec. What a method does not answer itself is what most of them would.

    `signal` is what the timestep strategy watches; `has_reference` whether the loss asks a reference model; `ranks` whether
    rewards are compared alone, so that one that is no number can be left out; `takes_reward_scale` whether lambda(t) has a
    place in the loss.
    """

    learns_from: ClassVar[LearnsFrom]
    recipes: ClassVar[Recipes]
    signal: ClassVar[Signal] = "margin"
    has_reference: ClassVar[bool] = True
    ranks: ClassVar[bool] = False
    takes_reward_scale: ClassVar[bool] = True
    usual_batch_size: ClassVar[int] = BATCH_SIZE
    images_per_example: ClassVar[int] = 1

    # --- what it learns from ---

    @property
    def data(self) -> DatasetSpec | None:
        """The preference data, where it learns from any."""
        return None

    @property
    def resolution(self) -> int | None:
        """The pixels that its data is brought to, where the spec says so."""
        return None

    @property
    def drops_ties(self) -> bool:
        """Whether rows that prefer neither image are left out."""
        return True

    @property
    def trained_rewards(self) -> tuple[RewardSpec, ...]:
        """The rewards that it climbs."""
        return ()

    @property
    def needs_v_prediction(self) -> bool:
        """Whether an option is read that models of other predictions do not have."""
        return False

    @property
    def needs_flow(self) -> bool:
        """Whether an option is read that models without flow matching do not have."""
        return False

    # --- how a run is cut up ---

    @property
    def trains_every_step(self) -> bool:
        """Whether every step of its own sampler is trained, so that there is none to choose."""
        return False

    def divides_into(self, examples_per_step: int) -> bool:
        """Whether what it draws at once can be cut into optimiser steps of this many examples."""
        return True

    def refuse_batch(self, batch_size: int, examples_per_step: int) -> None:
        """A misfit of `JobSpec` where the batch is one that the method cannot train with."""

    def why_not_remembered(self) -> str | None:
        """Why a frozen reference's errors cannot be kept from one visit of an example to the next, as a sentence's end."""
        return "it asks no reference on data that stays the same"

    def why_not_in_blocks(self) -> str | None:
        """Why the data cannot be visited block by block, as a sentence's end."""
        return "it learns from what it draws, and has no data to visit" if self.learns_from == "rewards" else None

    def steps_per_turn(self, examples_per_step: int) -> int:
        """Optimiser steps in what `reference.every` counts."""
        return 1

    def with_shorter_turns(self) -> Iterator[Self]:
        """The same with less in an iteration, the shortest first, and at last itself; not all divide into steps."""
        yield self

    # --- what is left out, and what was probably not meant ---

    def resolved(self) -> Self:
        """The same with every option written out that depends on another."""
        return self

    def warnings(self, examples_per_step: int) -> list[str]:
        """What is allowed but probably not meant, as sentences."""
        return []


def small_beta(beta: float) -> list[str]:
    """What is said of a beta that multiplies squared errors, where it is one of a language model's."""
    if beta >= 10:
        return []
    return [f"beta {beta:g} multiplies mean squared errors near 1e-3; language-model values do nothing here"]
