"""What an evaluation, or candidates, that could be run would cost, and whether its largest contender fits any card of the workers."""

from collections.abc import Iterator

from alignment_core.costs.proof import (
    ON_A_CPU,
    ON_A_GPU,
    KnownModel,
    ProofMemory,
    proof_bytes,
    proof_memory,
    proof_work,
)
from alignment_core.costs.rates import corrected, rates_of_card
from alignment_core.costs.seconds import Duration, duration_of
from alignment_core.spec import Contest
from service.api.context import Parts
from service.api.estimates import GIB, RESERVED_GIB, WITHIN, cards_for
from service.api.model_reports import family_of, foreseen
from service.api.schemas.contests import EvaluationEstimate
from service.errors import FieldProblem
from service.store import cards


def estimate_of_evaluation(parts: Parts, project_id: str, spec: Contest) -> EvaluationEstimate:
    """What follows from the numbers of the resolved spec and from the files of its models."""
    known, num_images = _models(parts, project_id, spec), spec.num_images
    if known is None or num_images is None:
        return EvaluationEstimate(num_images=num_images, memory=None, duration=None, stored=None)
    num_prompts = num_images // (len(spec.contenders) * spec.seeds_per_prompt)
    return EvaluationEstimate(
        num_images=num_images,
        memory=_memory(parts, spec, known, _images_at_once(parts, spec)),
        duration=_duration(parts, spec, known, num_prompts),
        stored=proof_bytes(spec, known, num_prompts),
    )


def problems_of_fit(parts: Parts, project_id: str, spec: Contest) -> Iterator[FieldProblem]:
    """Whether no card of the workers can hold a contender; where no worker has said what it has, one may."""
    fitting, known = cards_for(parts, spec), _models(parts, project_id, spec)
    if known is None or not fitting:
        return
    wanted = spec.sampling.batch_size
    memory = _memory(parts, spec, known, 1 if wanted == "auto" else wanted)
    room = fitting[0].memory_bytes / GIB - RESERVED_GIB
    if memory is None or memory.peak_gib * WITHIN <= room:
        return
    message = (
        f"the contender {memory.contender} needs about {memory.peak_gib:.1f} GiB (weights {memory.weights:.1f}, a batch "
        f"{memory.drawing:.1f}, judges {memory.judges:.1f}), and the largest card of the workers, {fitting[0].name}, has room for "
        f"{max(room, 0):.1f}: draw fewer images at once, in half precision, or leave it out"
    )
    yield FieldProblem(pointer="/spec/sampling/batch_size", code="does_not_fit", message=message)


def _models(parts: Parts, project_id: str, spec: Contest) -> list[KnownModel] | None:
    known: list[KnownModel] = []
    for one in spec.contenders:
        report, family = foreseen(parts, project_id, one), family_of(parts, project_id, one)
        if report is None or family is None:
            return None
        known.append(KnownModel(report, family))
    return known


def _memory(parts: Parts, spec: Contest, known: list[KnownModel], images_at_once: int) -> ProofMemory | None:
    return proof_memory(spec, known, images_at_once=images_at_once, is_half=_is_half(parts, spec))


def _duration(parts: Parts, spec: Contest, known: list[KnownModel], num_prompts: int) -> Duration | None:
    """On the card with the most memory, since nobody knows which worker will be free."""
    work = proof_work(spec, known, num_prompts)
    if work is None:
        return None
    card, is_half = next(iter(cards_for(parts, spec)), None), _is_half(parts, spec)
    is_gpu = is_half if card is None else card.device == "cuda"
    name = None if card is None else card.name
    measured = {} if card is None else cards.rates_of(parts.store, card.name, known[0].family)
    return duration_of(work, corrected(rates_of_card(name, is_gpu=is_gpu, is_half=is_half), measured), name)


def _images_at_once(parts: Parts, spec: Contest) -> int:
    if spec.sampling.batch_size != "auto":
        return spec.sampling.batch_size
    return ON_A_GPU if _runs_on_gpu(parts, spec) else ON_A_CPU


def _is_half(parts: Parts, spec: Contest) -> bool:
    precision = spec.sampling.precision
    return precision != "fp32" if precision != "auto" else _runs_on_gpu(parts, spec)


def _runs_on_gpu(parts: Parts, spec: Contest) -> bool:
    card = next(iter(cards_for(parts, spec)), None)
    if card is not None:
        return card.device == "cuda"
    wanted = spec.resources.device
    return wanted == "cuda" or (wanted == "auto" and "cuda" in parts.settings.worker_devices)
