"""A whole spec for each method, to copy and change: everything that has no default is there."""

from typing import Any

from pydantic import BaseModel

PROMPTS = ["a small red circle", "a big blue square", "a green cross on the left", "a yellow triangle at the top"]
STABLE_DIFFUSION = {
    "type": "hub",
    "repo_id": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "revision": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
}
COLORFULNESS = {"type": "colorfulness"}

# What a method's required fields may hold. An id like this belongs to no dataset.
REQUIRED: dict[str, Any] = {
    "dataset": {"type": "stored", "id": "ds_" + 26 * "0"},
    "prompts": PROMPTS,
    "reward": COLORFULNESS,
    "rewards": [COLORFULNESS],
}


def example_of(method: type[BaseModel], model: dict[str, str]) -> dict[str, Any]:
    """A spec of the method on `model` with defaults left out; it lacks nothing but the id of a dataset, where one is needed."""
    needed = {name: REQUIRED[name] for name, field in method.model_fields.items() if field.is_required()}
    return {
        "model": model,
        "method": {"type": method.model_fields["type"].default, **needed},
        "training": {"batch_size": 16, "gradient_accumulation_steps": 1},
        "evaluation": {"prompts": PROMPTS, "rewards": [COLORFULNESS]},
    }
