"""The shortest run that takes the first step of another: what is tried before anything that takes long. Pure data, no torch."""

from collections.abc import Iterator

from pydantic import ValidationError

from alignment_core.spec.job import JobSpec


def first_step_of(spec: JobSpec) -> JobSpec:
    """A resolved spec whose step is one forward and backward as large as those of `spec`, and one iteration of an online method.

    Passes after the first take no more memory. What is measured, recorded or compiled for many steps is left out.
    """
    plain = spec.training.model_copy(update={"reference_cache": None, "compile": "off", "cuda_graphs": "off"})
    one_pass = plain.model_copy(update={"gradient_accumulation_steps": 1})
    if spec.training.micro_batch == "auto":  # which cuts up the whole step
        return spec.model_copy(update={"training": plain})
    shorter = _fitting(spec.model_copy(update={"training": one_pass}))
    return next(shorter, spec.model_copy(update={"training": plain}))


def _fitting(spec: JobSpec) -> Iterator[JobSpec]:
    """The spec with the shortest iterations that divide into its steps; none where no length does."""
    for method in spec.method.with_shorter_turns():
        shorter = spec.model_copy(update={"method": method})
        try:
            yield JobSpec.model_validate(shorter.model_dump())
        except ValidationError:
            continue
