"""Several jobs beside each other: their curves, what their reports say, where their specs differ, and who asks people."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Response

from service.web.asking import ApiDep, part
from service.web.rendering import PagesDep

MOST_COMPARED = 6

router = APIRouter(include_in_schema=False)

Job = Mapping[str, Any]
Report = Mapping[str, Any]


class Match(NamedTuple):
    """The results of two jobs, which people may judge blind."""

    first: Job
    second: Job


@router.get("/compare")
async def compare_jobs(
    pages: PagesDep, api: ApiDep, job: Annotated[list[str], Query(max_length=MOST_COMPARED)]
) -> Response:
    """Curves over each other, reports side by side, and of the specs only what differs."""
    jobs = [await api.get(f"/v1/jobs/{part(one)}") for one in dict.fromkeys(job)]
    reports = [await api.get_or_none(f"/v1/jobs/{part(one['id'])}/report") for one in jobs]
    figures = [figures_of(report) for report in reports]
    return await pages.show(
        "compare.html",
        jobs=jobs,
        reports=reports,
        figures=figures,
        rewards=list(dict.fromkeys(name for one in figures for name in one)),
        are_alike=are_alike([report for report in reports if report]),
        matches=matches(jobs),
        differences=differences([one["spec"] for one in jobs]),
    )


def figures_of(report: Report | None) -> dict[str, Mapping[str, Any]]:
    """What a report says of each reward, by name, and of prompt-following after them; nothing where there is none yet."""
    if report is None:
        return {}
    following = report["prompt_following"]
    return {one["name"]: one for one in [*report["rewards"], *([following] if following else [])]}


def are_alike(reports: Sequence[Report]) -> bool:
    """Whether all were made on the same prompts and seeds, drawn alike, so that their figures compare."""
    drawn = [
        (
            one["num_inference_steps"],
            one["guidance_scale"],
            frozenset((image["prompt"], image["seed"]) for image in one["images"]),
        )
        for one in reports
    ]
    return all(one == drawn[0] for one in drawn)


def matches(jobs: Sequence[Job]) -> list[Match]:
    """Every two of the jobs that have a checkpoint as their result."""
    return [Match(*two) for two in combinations([job for job in jobs if job["result_checkpoint_id"]], 2)]


def differences(specs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The fields in which specs differ, with dots, and what each has there; what one has not is empty."""
    flat = [dict(_leaves(spec)) for spec in specs]
    names = dict.fromkeys(name for spec in flat for name in spec)
    rows = [(name, [spec.get(name, "") for spec in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}".lstrip("."))]
    return [(name, value if isinstance(value, str) else json.dumps(value))]
