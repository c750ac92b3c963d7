"""Images that models draw of prompts, to be looked at and judged by people. Pure data, no torch."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.job import sha256_of_json
from alignment_core.spec.prompts import HeldOutPrompts, num_expected
from alignment_core.spec.proof import MOST_CONTENDERS, ContenderSpec, ProofResources, ProofSpec, SamplingSpec
from alignment_core.spec.sources import Name
from alignment_core.spec.training import Precision

MOST_SEEDS = 64

ImageSeed = Annotated[int, Field(ge=0, lt=2**32)]  # what a browser's JSON reads exactly


class CandidatesSpec(Spec):
    """What every one of some models draws of the same prompts from the same seeds."""

    contenders: tuple[ContenderSpec, ...] = Field(min_length=1, max_length=MOST_CONTENDERS)
    prompts: HeldOutPrompts = Field(
        description="What is drawn: a list of at most 10,000, or where they are. One that comes twice counts once."
    )
    seeds_per_prompt: int = Field(
        default=4, ge=1, le=MOST_SEEDS, description="Images per prompt and model. Pairs of one model need two."
    )
    seeds: tuple[ImageSeed, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_SEEDS,
        description="The seeds themselves, the same for every prompt, in place of `seeds_per_prompt` that follow from `seed`.",
    )
    sampling: SamplingSpec = SamplingSpec()
    resources: ProofResources = ProofResources()
    max_run_seconds: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="An attempt fails after the batch in which so many seconds are over.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The seeds of all images follow from it.")

    @field_validator("contenders")
    @classmethod
    def _contenders_are_told_apart(cls, contenders: tuple[ContenderSpec, ...]) -> tuple[ContenderSpec, ...]:
        names = [one.name for one in contenders]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise misfit(f"two contenders are called {name}: their images could not be told apart", f"{index}.name")
        return contenders

    @model_validator(mode="after")
    def _says_its_seeds_once(self) -> Self:
        if self.seeds is None:
            return self
        if len(set(self.seeds)) < len(self.seeds):
            raise misfit("a seed that comes twice would draw the same image twice", "seeds")
        if "seeds_per_prompt" in self.model_fields_set and self.seeds_per_prompt != len(self.seeds):
            raise misfit(
                f"it is {self.seeds_per_prompt}, and seeds names {len(self.seeds)}: leave one out", "seeds_per_prompt"
            )
        return self

    @property
    def anchor_name(self) -> str:
        """The contender whose predictions say which half precision all of them draw in."""
        return self.contenders[0].name

    @property
    def rewards(self) -> tuple[()]:
        """Nobody but people judges them."""
        return ()

    @property
    def prompt_following(self) -> None:
        return None

    @property
    def num_seeds(self) -> int:
        """Of each prompt."""
        return self.seeds_per_prompt if self.seeds is None else len(self.seeds)

    @property
    def num_images(self) -> int | None:
        """Of all contenders; None where the spec does not say how many prompts there are."""
        prompts = self.prompts
        num = len(dict.fromkeys(prompts)) if isinstance(prompts, tuple) else num_expected(prompts, 0)
        return len(self.contenders) * num * self.num_seeds or None

    def resolved(self) -> "CandidatesSpec":
        """The same with the number of its seeds written out."""
        return self.model_copy(update={"seeds_per_prompt": self.num_seeds})

    def sha256(self) -> str:
        """Hash of what the images follow from: not of the machine that draws, nor of how many it draws at once."""
        apart = {"resources": True, "max_run_seconds": True, "sampling": {"batch_size"}}
        return sha256_of_json(self.resolved().model_dump(mode="json", exclude=apart))

    def drawn_alike(self, contender: ContenderSpec) -> str:
        """Hash of a contender by any name, of how it draws and where its seeds come from: what may have drawn the same images before."""
        told = {
            "contender": contender.model_dump(mode="json", exclude={"name"}),
            "sampling": self.sampling.model_dump(mode="json", exclude={"batch_size"}),
            "seed": self.seed if self.seeds is None else None,
        }
        return sha256_of_json(told)


class DrawnAlready(Spec):
    """What earlier attempts left: contender, place of the prompt and number of the seed of each image, and their precision."""

    images: tuple[tuple[Name, int, int], ...] = ()
    precision: Precision | None = None


Contest = ProofSpec | CandidatesSpec
"""What models draw side by side, to be scored or to be looked at."""
