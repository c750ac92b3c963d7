"""Which changes of a spec a checkpoint survives: a new run may go on from one of another run. Pure data, no torch.

What must stay is what the training state is made of (model, start, adapter, reference, timesteps, an online method's rollouts), and
what keeps held-out data held out (dataset, seed, share). All the rest may change, and that is what one changes: batch size,
learning rate, beta, more steps, other evaluation prompts.
"""

from typing import Any

from alignment_core.spec.families import FamilyName
from alignment_core.spec.job import JobSpec

MUST_STAY = ("model", "start", "adapter", "reference", "timesteps", "seed")


def broken_by(before: JobSpec, after: JobSpec, family: FamilyName | None = None) -> list[str]:
    """JSON pointers to what of `after` differs from `before` and must not, for a run of `after` to go on from `before`'s.

    `family` is that of the model, if it is known.
    """
    old, new = (spec.resolved(family).model_dump(mode="json") for spec in (before, after))
    pointers = [f"/{name}" for name in MUST_STAY if old[name] != new[name]]
    if after.is_online or before.is_online:
        return pointers + _differing(old, new, ("method",), *([] if _as_many(before, after) else BATCH))
    return pointers + _differing(
        old, new, ("method", "type"), ("method", "dataset"), ("training", "validation_fraction")
    )


BATCH = (("training", "batch_size"), ("training", "gradient_accumulation_steps"), ("resources", "processes"))


def _as_many(before: JobSpec, after: JobSpec) -> bool:
    """Whether both have as many examples a step: how they are cut up, over processes too, changes none of them."""
    return before.examples_per_step == after.examples_per_step


def _differing(old: dict[str, Any], new: dict[str, Any], *places: tuple[str, ...]) -> list[str]:
    return ["/" + "/".join(place) for place in places if _at(old, place) != _at(new, place)]


def _at(value: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        value = value.get(name)
    return value
