"""What the playground's form holds, and the request that it stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Form, Query

from service.web.contender_choices import RESULTS_OF_JOBS, ModelGroup, model_of, slug_of, value_of, value_of_contender
from service.web.field_problems import number_or_text

FIELDS = {
    "/prompt": "prompt",
    "/seed": "seed",
    "/contenders": "model",
    "/contenders/1": "against",
    "/sampling/num_inference_steps": "num_inference_steps",
    "/sampling/guidance_scale": "guidance_scale",
}
OF_SAMPLING = ("num_inference_steps", "guidance_scale")
NUM_SEEDS = 2**32

Typed = Annotated[str, Form(max_length=50)]
ModelTyped = Annotated[str, Form(max_length=5000)]


@dataclass(frozen=True)
class PlaygroundForm:
    """The fields as text, so that nothing typed is lost, right or wrong."""

    prompt: str = ""
    seed: str = "0"
    model: str = ""
    against: str = ""
    num_inference_steps: str = ""
    guidance_scale: str = ""

    def request(self) -> dict[str, Any]:
        """The body of `POST /v1/playground`; what was left empty is left to the API's defaults."""
        sampling = {name: number_or_text(text) for name in OF_SAMPLING if (text := getattr(self, name).strip())}
        chosen = [one for one in (self.model, self.against) if one]
        return {
            "prompt": self.prompt.strip(),
            "contenders": [{"name": slug_of(one), "model": model_of(one)} for one in chosen],
            **({"seed": number_or_text(self.seed.strip())} if self.seed.strip() else {}),
            **({"sampling": sampling} if sampling else {}),
        }

    def beginning_with(self, groups: Sequence[ModelGroup]) -> "PlaygroundForm":
        """Where nobody has chosen yet: the first model that there is, and the newest result of a job."""
        first = {group.label: group.choices[0].value for group in groups}
        return replace(
            self, model=next(iter(first.values()), ""), against=self.against or first.get(RESULTS_OF_JOBS, "")
        )

    def with_next_seed(self) -> "PlaygroundForm":
        """Other noise; what is no number stays, for the API to say so."""
        seed = number_or_text(self.seed.strip() or "0")
        return replace(self, seed=str((seed + 1) % NUM_SEEDS)) if isinstance(seed, int) else self


def typed(
    prompt: Annotated[str, Form(max_length=50_000)] = "",
    seed: Typed = "",
    model: ModelTyped = "",
    against: ModelTyped = "",
    num_inference_steps: Typed = "",
    guidance_scale: Typed = "",
) -> PlaygroundForm:
    """The form as it was sent."""
    return PlaygroundForm(prompt, seed, model, against, num_inference_steps, guidance_scale)


def of_address(
    prompt: Annotated[str, Query(max_length=2000)] = "",
    seed: Annotated[str, Query(max_length=50)] = "0",
    model: Annotated[str, Query(max_length=5000)] = "",
    against: Annotated[str, Query(max_length=5000)] = "",
) -> PlaygroundForm:
    """The form as a link to it fills it in."""
    return PlaygroundForm(prompt, seed, model, against)


def of_job(form: PlaygroundForm, job: Mapping[str, Any], checkpoint_id: str) -> PlaygroundForm:
    """The model that a job began from against a checkpoint of it, drawn as its evaluation draws."""
    evaluation = job["spec"]["evaluation"]
    return replace(
        form,
        model=value_of(job["spec"]["model"]),
        against=checkpoint_id,
        num_inference_steps=str(evaluation["num_inference_steps"]),
        guidance_scale=f"{evaluation['guidance_scale']:g}",
    )


def of_drawn(spec: Mapping[str, Any]) -> PlaygroundForm:
    """What was asked for, so that the next picture differs in one thing; of what the form cannot say, nothing."""
    values = [value_of_contender(one) for one in spec["contenders"]]
    return PlaygroundForm(
        prompt=spec["prompts"][0],
        seed=str(spec["seeds"][0]),
        model=values[0],
        against=values[1] if len(values) > 1 else "",
        num_inference_steps=str(spec["sampling"]["num_inference_steps"]),
        guidance_scale=f"{spec['sampling']['guidance_scale']:g}",
    )
