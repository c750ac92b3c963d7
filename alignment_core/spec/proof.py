"""An evaluation of models that need not come from a run: who competes, on what, and by whose judgement. Pure data, no torch."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.evaluation import EvaluationSpec
from alignment_core.spec.job import sha256_of_json
from alignment_core.spec.prompts import HeldOutPrompts, num_expected
from alignment_core.spec.rewards import RewardSpec
from alignment_core.spec.sources import COMMIT, REPO_ID, WEIGHTS_ID, LocalPath, ModelSpec, Name, WeightsId
from alignment_core.spec.start import SAFETENSORS_FILE, LoraSource
from alignment_core.spec.training import Precision
from alignment_core.spec.unions import OneOf

MOST_CONTENDERS = 16


def _default(field: str) -> Any:
    """What a job's own report is made with."""
    return EvaluationSpec.model_fields[field].default


def _as_in_a_job(field: str, **bounds: Any) -> Any:
    """A field that is what it is of a job's own report."""
    return Field(default=_default(field), description=EvaluationSpec.model_fields[field].description, **bounds)


class StoredDenoiser(Spec):
    """A U-Net or transformer that was uploaded to the service; see `POST /v1/weights`."""

    type: Literal["stored"] = "stored"
    id: WeightsId = Field(description="Id of weights whose state is `ready`.")


class HubDenoiser(Spec):
    """A safetensors file of a repository of the Hugging Face Hub at a pinned commit, as fine-tunes of a U-Net alone are published."""

    type: Literal["hub"] = "hub"
    repo_id: str = Field(max_length=200, pattern=REPO_ID, description="`owner/name` of the repository.")
    revision: str = Field(
        pattern=COMMIT, description="Full commit hash. A branch or tag is refused, since it may move between two runs."
    )
    file: Annotated[str, StringConstraints(max_length=300, pattern=SAFETENSORS_FILE)] = Field(
        default="unet/diffusion_pytorch_model.safetensors", description="Which file of the repository."
    )


class LocalDenoiser(Spec):
    """A safetensors file on the machine that draws. The HTTP service refuses it unless its operator allows it."""

    type: Literal["local"] = "local"
    path: LocalPath = Field(examples=["models/unet/diffusion_pytorch_model.safetensors"])


def _uploaded(text: str) -> dict[str, str] | None:
    return {"type": "stored", "id": text} if re.fullmatch(WEIGHTS_ID, text) else None


DenoiserSource = Annotated[
    StoredDenoiser | HubDenoiser | LocalDenoiser,
    OneOf(_uploaded, 'write the id of uploaded weights ("wts_..."), or {"type": "local", "path": FILE}'),
]


class ContenderSpec(Spec):
    """A model that competes: a base model, with other weights in its denoiser, with a LoRA added, or with both."""

    name: Name = Field(description="What the report calls it.", examples=["aligned"])
    model: ModelSpec = Field(
        description="The base model. Over HTTP a checkpoint of a LoRA will do: it stands for its job's model with that LoRA."
    )
    denoiser: DenoiserSource | None = Field(
        default=None,
        description="A whole U-Net or transformer under diffusers' names, in place of the base model's own.",
    )
    lora: LoraSource | None = Field(default=None, description="A LoRA under PEFT's, diffusers' or kohya's names.")
    strength: float = Field(default=1.0, ge=-10, le=10, description="Factor of what the LoRA adds.")
    alpha: float | None = Field(
        default=None,
        gt=0,
        description="LoRA scale numerator of the layers whose file does not say it; their rank else.",
    )

    @model_validator(mode="after")
    def _has_a_lora_to_scale(self) -> Self:
        for field in ("strength", "alpha"):
            if self.lora is None and getattr(self, field) != type(self).model_fields[field].default:
                raise misfit(f"{field} is that of a LoRA, and there is none", field)
        return self


class SamplingSpec(Spec):
    """How every contender draws."""

    num_inference_steps: int = _as_in_a_job("num_inference_steps", ge=1, le=1000)
    guidance_scale: float = _as_in_a_job("guidance_scale", ge=0, le=100)
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto",
        description="Images sampled at once. `auto`: 8 on a CPU, and on a GPU 32, halved for as long as they do not fit.",
    )
    precision: Literal["auto"] | Precision = Field(
        default="auto",
        description="Precision of the networks. `auto`: fp32 on a CPU, and on a GPU fp16 or bf16, whichever the anchor's predictions "
        "measure as more exact; all contenders draw in the same.",
    )


class ProofResources(Spec):
    """What the evaluation needs of a machine; no number of a report follows from it but by rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(default=1, ge=1, le=1024, description="Processes that draw, each on a device of its own.")
    num_cpu_threads: int | None = Field(
        default=None, ge=1, le=1024, description="Threads on a CPU; torch's choice when left out. Tiny models want 1."
    )


class ProofSpec(Spec):
    """Two or more models on the same prompts from the same seeds, one of them the anchor that the others are compared with."""

    contenders: tuple[ContenderSpec, ...] = Field(min_length=2, max_length=MOST_CONTENDERS)
    anchor: Name | None = Field(
        default=None, description="Name of the contender that the others are compared with; the first when left out."
    )
    prompts: HeldOutPrompts = Field(
        description="What is drawn: a list of at most 10,000, or where they are. One that comes twice counts once."
    )
    seeds_per_prompt: int = Field(
        default=_default("seeds_per_prompt"),
        ge=1,
        le=64,
        description="Images per prompt and model. Diversity needs two.",
    )
    rewards: tuple[RewardSpec, ...] = Field(
        min_length=1, max_length=16, description="Scores in the report. The first one decides the verdict."
    )
    prompt_following: RewardSpec | None = Field(default=None, description="A judge of prompt-following.")
    sampling: SamplingSpec = SamplingSpec()
    grid_prompts: int = Field(default=_default("grid_prompts"), ge=1, le=64, description="Prompts shown as pictures.")
    bootstrap_resamples: int = _as_in_a_job("bootstrap_resamples", ge=100, le=1_000_000)
    confidence: float = _as_in_a_job("confidence", gt=0.5, lt=1)
    resources: ProofResources = ProofResources()
    seed: int = Field(default=0, ge=0, lt=2**63, description="Every random draw follows from it.")

    @field_validator("contenders")
    @classmethod
    def _contenders_are_told_apart(cls, contenders: tuple[ContenderSpec, ...]) -> tuple[ContenderSpec, ...]:
        names = [one.name for one in contenders]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise misfit(f"two contenders are called {name}: the report would not tell them apart", f"{index}.name")
        return contenders

    @field_validator("rewards")
    @classmethod
    def _rewards_are_told_apart(cls, rewards: tuple[RewardSpec, ...]) -> tuple[RewardSpec, ...]:
        return EvaluationSpec(rewards=rewards).rewards

    @model_validator(mode="after")
    def _the_anchor_competes(self) -> Self:
        names = [one.name for one in self.contenders]
        if self.anchor is not None and self.anchor not in names:
            raise misfit(f"the anchor {self.anchor!r} is none of the contenders: {', '.join(names)}", "anchor")
        return self

    @property
    def anchor_name(self) -> str:
        """The contender that the others are compared with."""
        return self.anchor or self.contenders[0].name

    @property
    def num_images(self) -> int | None:
        """Of all contenders; None where the spec does not say how many prompts there are."""
        prompts = self.prompts
        num = len(dict.fromkeys(prompts)) if isinstance(prompts, tuple) else num_expected(prompts, 0)
        return len(self.contenders) * num * self.seeds_per_prompt or None

    def resolved(self) -> "ProofSpec":
        """The same with its anchor written out."""
        return self.model_copy(update={"anchor": self.anchor_name})

    def sha256(self) -> str:
        """Hash of what the numbers follow from: not of the machine that draws, nor of how many images it draws at once."""
        apart = {"resources": True, "sampling": {"batch_size"}}
        return sha256_of_json(self.resolved().model_dump(mode="json", exclude=apart))
