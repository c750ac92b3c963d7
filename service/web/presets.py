"""A few whole choices to begin with: what each sets and takes back, and where its numbers come from (docs/methods.md has all of them)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

RECOMMENDED = "What this server's operator recommends for the model and the method."
LEFT_TO_THE_METHOD = ("batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_steps")


class Preset(NamedTuple):
    """`sets` is laid over the spec; None there takes a field out, so that its default holds."""

    id: str
    title: str
    about: str
    sets: Mapping[str, Any]
    method: str | None = None


def _published(method: str, about: str, sets: Mapping[str, Any]) -> Preset:
    return Preset(f"published_{method}", "As published", about, sets, method)


def _passes(batch_size: int, accumulation: int, steps: int, **more: Any) -> dict[str, Any]:
    given = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation, "steps": steps}
    return {**dict.fromkeys(LEFT_TO_THE_METHOD), **given, **more}


PRESETS = (
    Preset(
        "quick",
        "Quick check",
        "20 steps and a report on 8 prompts: whether everything fits together, not whether it helps. Numbers of ours.",
        {"training": {"steps": 20}, "evaluation": {"max_prompts": 8, "seeds_per_prompt": 1}},
    ),
    Preset(
        "lora",
        "Recommended LoRA",
        "Rank 8, 2,000 steps, batch and learning rate of the method: diffusers' Diffusion-DPO LoRA scripts and the methods' papers.",
        {
            "adapter": {"type": "lora", "rank": None, "alpha": None, "target_modules": None, "text_encoder": None},
            "training": {**dict.fromkeys(LEFT_TO_THE_METHOD), "steps": None},
            "evaluation": {"max_prompts": None, "seeds_per_prompt": None},
        },
    ),
    _published(
        "diffusion_dpo",
        "Every weight, 2,048 pairs a step, 2,000 steps: Wallace et al., arXiv 2311.12908, and the launcher that they released.",
        {"adapter": {"type": "full"}, "training": _passes(4, 512, 2000), "method": {"beta": None, "loss": None}},
    ),
    _published(
        "diffusion_kto",
        "Every weight, 8 images a step, 20,000 steps: Li et al., arXiv 2404.04465.",
        {"adapter": {"type": "full"}, "training": _passes(8, 1, 20_000), "method": {"caption_dropout": None}},
    ),
    _published(
        "mapo",
        "Every weight, 16 pairs a step, 2,000 steps, for SDXL: Hong et al., arXiv 2406.06424, and the code that they released.",
        {"adapter": {"type": "full"}, "training": _passes(8, 2, 2000), "method": {"beta": None, "kappa": None}},
    ),
    _published(
        "dpok",
        "LoRA of rank 4, 50 steps of sampling, 10,000 optimiser steps: Fan et al., arXiv 2305.16381, and the code that they released.",
        {
            "adapter": {"type": "lora", "rank": 4},
            "training": _passes(4, 12, 10_000, max_grad_norm=0.1, weight_decay=0.0),
            "method": {"num_inference_steps": 50},
        },
    ),
)


def presets_of(method: str, recipe: Mapping[str, Any]) -> list[Preset]:
    """Those that a job of the method may begin with, what the operator recommends for its model first."""
    recommended = [Preset("recipe", "For this model", RECOMMENDED, recipe)] if recipe else []
    return [*recommended, *(one for one in PRESETS if one.method in (None, method))]


def with_preset(spec: Mapping[str, Any], preset_id: str, method: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with what the preset sets; as it is where the method has no such preset."""
    found = next((one for one in presets_of(method, recipe) if one.id == preset_id), None)
    return dict(spec) if found is None else laid_over(spec, found.sets)


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Objects within objects, field by field; another `type` begins anew, and None takes out."""
    has_other_type = "type" in over and under.get("type") not in (None, over["type"])
    found = {} if has_other_type else dict(under)
    for name, value in over.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            inner = found.get(name)
            found[name] = laid_over(inner if isinstance(inner, Mapping) else {}, value)
        else:
            found[name] = value
    return found
