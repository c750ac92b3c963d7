"""What the form for candidates holds, and the request that it stands for."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from fastapi import Form

from service.web.contender_choices import model_of, slug_of, value_of
from service.web.field_problems import number_or_text

REPORT_OF = "report_of"
"""Under which key candidates keep the job whose report tells what people say of them."""

CHECKPOINT = "ckpt_"
MOST_PROMPTS_SHOWN = 200
LONGEST_PROMPTS = 2 * 2**20
FIELDS = {
    "/name": "name",
    "/metadata": REPORT_OF,
    "/spec/contenders": "model",
    "/spec/contenders/1": "against",
    "/spec/prompts": "prompts",
    "/spec/prompts/id": "prompt_set",
    "/spec/seeds_per_prompt": "seeds_per_prompt",
    "/spec/sampling/num_inference_steps": "num_inference_steps",
    "/spec/sampling/guidance_scale": "guidance_scale",
    "/spec/seed": "seed",
}
NUMBERS = ("seeds_per_prompt", "seed")
OF_SAMPLING = ("num_inference_steps", "guidance_scale")


@dataclass(frozen=True)
class DrawForm:
    """The fields as text, so that nothing typed is lost, right or wrong."""

    name: str = ""
    model: str = ""
    against: str = ""
    prompts: str = ""
    prompt_set: str = ""
    seeds_per_prompt: str = "4"
    num_inference_steps: str = ""
    guidance_scale: str = ""
    seed: str = ""
    report_of: str = ""
    problems: dict[str, list[str]] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """The body of `POST /v1/candidates`; what was left empty is left to the API's defaults."""
        typed = {name: getattr(self, name).strip() for name in (*NUMBERS, *OF_SAMPLING)}
        numbers = {name: number_or_text(text) for name, text in typed.items() if text}
        sampling = {name: numbers.pop(name) for name in OF_SAMPLING if name in numbers}
        prompts: Any = [line.strip() for line in self.prompts.splitlines() if line.strip()]
        spec = {
            "contenders": self._contenders(),
            "prompts": self.prompt_set or prompts,
            **numbers,
            **({"sampling": sampling} if sampling else {}),
        }
        metadata = {REPORT_OF: self.report_of} if self.report_of else {}
        return {"spec": spec, "metadata": metadata, **({"name": self.name} if self.name else {})}

    def own_problems(self) -> dict[str, list[str]]:
        """What the request could not show: of two answers to one question it has one."""
        if self.prompt_set and self.prompts.strip():
            return {"prompt_set": ["there are prompts above too: empty that field, or choose no set here"]}
        return {}

    def _contenders(self) -> list[dict[str, Any]]:
        chosen = [one for one in (self.model, self.against) if one]
        has_base = bool(self.report_of) and not self.model.startswith(CHECKPOINT)
        names = ("base", "aligned") if has_base else tuple(map(slug_of, chosen))
        return [{"name": name, "model": model_of(one)} for name, one in zip(names, chosen, strict=False)]


def typed(
    name: Annotated[str, Form(max_length=200)] = "",
    model: Annotated[str, Form(max_length=5000)] = "",
    against: Annotated[str, Form(max_length=5000)] = "",
    prompts: Annotated[str, Form(max_length=LONGEST_PROMPTS)] = "",
    prompt_set: Annotated[str, Form(max_length=100)] = "",
    seeds_per_prompt: Annotated[str, Form(max_length=50)] = "",
    num_inference_steps: Annotated[str, Form(max_length=50)] = "",
    guidance_scale: Annotated[str, Form(max_length=50)] = "",
    seed: Annotated[str, Form(max_length=50)] = "",
    report_of: Annotated[str, Form(max_length=100)] = "",
) -> DrawForm:
    """The form as it was sent."""
    return DrawForm(
        name=name,
        model=model,
        against=against,
        prompts=prompts,
        prompt_set=prompt_set,
        seeds_per_prompt=seeds_per_prompt,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        seed=seed,
        report_of=report_of,
    )


class Result(NamedTuple):
    """A checkpoint of a job, with the job and its report as the API shows them."""

    checkpoint_id: str
    job: dict[str, Any]
    report: dict[str, Any] | None


def of_job(result: Result) -> DrawForm:
    """What compares a checkpoint of a job with the model that it began from, on prompts that it was not trained on."""
    job = result.job
    return replace(
        _drawn_as(job, _held_out(result), _set_of(result)),
        name=f"{job['name'] or job['id']}, blind"[:200],
        model=value_of(job["spec"]["model"]),
        against=result.checkpoint_id,
        report_of=job["id"],
    )


def of_two(one: Result, other: Result) -> DrawForm:
    """What compares two checkpoints, on the prompts that neither was trained on; where they share none, on those of both.

    The report of the second one's job tells who won, or where it has none that of the first.
    """
    of_one, of_other = _held_out(one), _held_out(other)
    others = set(of_other)
    shared = [prompt for prompt in of_one if prompt in others]
    both = shared or list(dict.fromkeys([*of_one, *of_other]))
    named = " and ".join(one.job["name"] or one.job["id"] for one in (one, other))
    return replace(
        _drawn_as(one.job, both, _set_of(one) if _set_of(one) == _set_of(other) else ""),
        name=f"{named}, blind"[:200],
        model=one.checkpoint_id,
        against=other.checkpoint_id,
        report_of=(one if one.report and not other.report else other).job["id"],
    )


def _held_out(result: Result) -> list[str]:
    """The prompts of its report; those of the validation split are known once it has read them."""
    held_out = result.job["spec"]["evaluation"]["prompts"]
    if isinstance(held_out, list):
        return held_out
    return list(dict.fromkeys(one["prompt"] for one in (result.report or {}).get("images", [])))


def _set_of(result: Result) -> str:
    held_out = result.job["spec"]["evaluation"]["prompts"]
    return held_out.get("id", "") if isinstance(held_out, dict) else ""


def _drawn_as(job: dict[str, Any], prompts: list[str], prompt_set: str) -> DrawForm:
    """Each prompt once, drawn as for the job's report."""
    evaluation = job["spec"]["evaluation"]
    return DrawForm(
        prompts="" if prompt_set else "\n".join(prompts[:MOST_PROMPTS_SHOWN]),
        prompt_set=prompt_set,
        seeds_per_prompt="1",
        num_inference_steps=str(evaluation["num_inference_steps"]),
        guidance_scale=f"{evaluation['guidance_scale']:g}",
    )
