"""Which class of workers a job is for, by its processes and by what it was estimated to take of a card."""

from collections.abc import Iterator, Sequence

from alignment_core.costs.memory import Memory, memory_of
from alignment_core.spec import JobSpec
from service.api.context import Parts
from service.api.estimates import (
    RESERVED_GIB,
    WITHIN,
    Model,
    at_its_smallest,
    cards_for,
    components,
    on_its_device,
    remedies,
    runs_in_half,
)
from service.errors import FieldProblem
from service.resource_classes import ResourceClass, class_of


def card_gib(parts: Parts, spec: JobSpec, model: Model | None) -> float | None:
    """What each process needs of its card; None where nobody has estimated it, or where what was estimated may be wrong.

    As the spec is; where no class has room for that, as it may come to be, or as much as the estimate may be too high.
    """
    needs = _needs(parts, spec, model)
    if not parts.settings.classes:
        return next(iter(needs), None)
    return next((gib for gib in needs if class_of(spec.resources.processes, gib, parts.settings.classes)), None)


def problems_of_placement(parts: Parts, spec: JobSpec, model: Model | None) -> Iterator[FieldProblem]:
    """Whether no class of workers has cards that could hold it. Weights in shares were never measured, and refuse nobody."""
    classes, processes = parts.settings.classes, spec.resources.processes
    if model is None or spec.resources.strategy == "fsdp2" or not _needs(parts, spec, model):
        return
    enough = [one for one in classes if processes <= one.most]
    if not enough or card_gib(parts, spec, model) is not None:
        return
    smallest, is_half = _on_its_device(parts, at_its_smallest(spec)), _is_half(parts, spec)
    memory = memory_of(smallest, model.report, model.family, is_half=is_half)
    assert memory is not None
    message = (
        f"needs about {memory.peak_gib:.1f} GiB while {memory.phase} ({components(memory)}), and {_offered(enough)}. "
        f"{remedies(smallest, model, memory, is_half=is_half)}"
    )
    yield FieldProblem(pointer="/spec/training/batch_size", code="fits_no_class", message=message)


def _needs(parts: Parts, spec: JobSpec, model: Model | None) -> Sequence[float]:
    """From the most to the least that it may take; none where that is not known."""
    if model is None:
        return ()
    of_spec, smallest = (_memory(parts, one, model) for one in (spec, at_its_smallest(spec)))
    if of_spec is None or smallest is None:
        return ()
    peaks = (of_spec.peak_gib, smallest.peak_gib, WITHIN * smallest.peak_gib)
    return [round(peak + RESERVED_GIB, 3) for peak in peaks]


def _memory(parts: Parts, spec: JobSpec, model: Model) -> Memory | None:
    here = _on_its_device(parts, spec)
    return memory_of(here, model.report, model.family, is_half=_is_half(parts, spec))


def _on_its_device(parts: Parts, spec: JobSpec) -> JobSpec:
    return on_its_device(spec, cards_for(parts, spec), parts.settings.worker_devices)


def _is_half(parts: Parts, spec: JobSpec) -> bool:
    return runs_in_half(spec, cards_for(parts, spec), parts.settings.worker_devices)


def _offered(classes: Sequence[ResourceClass]) -> str:
    largest = max(classes, key=lambda one: one.gib)
    return f"the class of workers with the most memory that takes as many processes, {largest.name}, has cards of {largest.gib:g} GiB"
