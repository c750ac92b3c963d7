"""Whether the prompts in a spec have a score by the rewards that are asked for them, where their words are on this machine."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from alignment_core.spec import (
    AttributeClassifierReward,
    CatalogSource,
    JobSpec,
    LocalPrompts,
    OnlineMethodSpec,
    PromptSetSource,
)
from alignment_core.spec.attribute_words import Attributes, read_attributes, why_without_score
from alignment_core.spec.places import walk
from alignment_core.spec.sources import Prompts
from service.errors import FieldProblem
from service.store.catalog import Catalog


def problems_of_prompts(spec: JobSpec, catalog: Catalog) -> Iterator[FieldProblem]:
    """The first prompt of each list that a classifier cannot score: it names nothing that this knows."""
    evaluation, method = spec.evaluation, spec.method
    held_out = _listed(evaluation.prompts)
    prompts = list(dict.fromkeys(held_out))[: evaluation.max_prompts]
    judges = (*evaluation.rewards, *filter(None, [evaluation.prompt_following]))
    yield from _problems("evaluation", prompts, judges, catalog)
    if isinstance(method, OnlineMethodSpec):
        yield from _problems("method", _listed(method.prompts), method.trained_rewards, catalog)


def _listed(prompts: Prompts | PromptSetSource | LocalPrompts | None) -> Prompts:
    """Those that are in the spec; a run looks at those of a set before anything else."""
    return prompts if isinstance(prompts, tuple) else ()


def _problems(
    section: str, prompts: Sequence[str], rewards: Sequence[object], catalog: Catalog
) -> Iterator[FieldProblem]:
    classifiers = [
        part for reward in rewards for _, part in walk(reward) if isinstance(part, AttributeClassifierReward)
    ]
    for attributes in filter(None, (_attributes(one, catalog) for one in classifiers)):
        found = (why_without_score(prompt, attributes) for prompt in prompts)
        if (why := next(filter(None, found), None)) is not None:
            yield FieldProblem(pointer=f"/spec/{section}/prompts", code="prompt_not_scorable", message=why)
            return


def _attributes(reward: AttributeClassifierReward, catalog: Catalog) -> Attributes | None:
    weights = reward.weights
    if not isinstance(weights, CatalogSource):
        return read_attributes(Path(weights.path))
    entry = catalog.rewards.get(weights.name)
    return None if entry is None else read_attributes(entry.path)
