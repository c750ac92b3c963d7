"""The prompt sets that a spec names: whether they are there, and their hash and number written into it."""

from collections.abc import Iterator

from alignment_core.spec import Contest, JobSpec, OnlineMethodSpec, PromptSetSource
from service.api.context import Parts
from service.errors import FieldProblem
from service.store import prompt_sets
from service.store.catalog import stored_prompts
from service.store.records.uploads import PromptSetRecord


def problems_of_prompt_sets(parts: Parts, project_id: str, spec: JobSpec | Contest) -> Iterator[FieldProblem]:
    """Sets that the project does not have, or that are others than the spec says they are."""
    for pointer, source in stored_prompts(spec):
        found = prompt_sets.get(parts.store, project_id, source.id)
        if found is None:
            message = f"there is no prompt set {source.id!r} in this project"
            yield _problem(f"{pointer}/id", "prompt_set_not_found", message)
            continue
        if source.sha256 not in (None, found.sha256):
            message = f"{source.id} holds other prompts: their hash is {found.sha256}"
            yield _problem(f"{pointer}/sha256", "prompt_set_differs", message)
        if source.count not in (None, found.num_prompts):
            message = f"{source.id} has {found.num_prompts} prompts"
            yield _problem(f"{pointer}/count", "prompt_set_differs", message)


def with_prompt_sets(parts: Parts, project_id: str, spec: JobSpec) -> JobSpec:
    """The spec with the hash and the number of every prompt set that it names: a set may be deleted, and these stay."""
    method, evaluation = spec.method, spec.evaluation
    if isinstance(method, OnlineMethodSpec) and isinstance(method.prompts, PromptSetSource):
        method = method.model_copy(update={"prompts": told(parts, project_id, method.prompts)})
    if isinstance(evaluation.prompts, PromptSetSource):
        evaluation = evaluation.model_copy(update={"prompts": told(parts, project_id, evaluation.prompts)})
    return spec.model_copy(update={"method": method, "evaluation": evaluation})


def told(parts: Parts, project_id: str, source: PromptSetSource) -> PromptSetSource:
    """The set with its hash and its number."""
    found: PromptSetRecord | None = prompt_sets.get(parts.store, project_id, source.id)
    if found is None:  # which is refused elsewhere
        return source
    return source.model_copy(update={"sha256": found.sha256, "count": found.num_prompts})


def _problem(pointer: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"/spec{pointer}", code=code, message=message)
