"""What pages are about: what the API calls each kind of thing, where its page lies, and the list that it stands in."""

import re
from typing import Literal, NamedTuple

from service.web.navigation import DATASETS, JOBS, LABEL, MODELS, NEW_JOB, PLAYGROUND

Kind = Literal["jobs", "datasets", "candidates", "plays", "labelings", "aliases"]
DRAW = "/label/draw"
LISTS = {
    JOBS: "All jobs",
    DATASETS: "All data sets",
    LABEL: "All labelings and pictures",
    PLAYGROUND: "Playground",
    MODELS: "All models",
}
FORMS = {NEW_JOB: ("New job", JOBS), DRAW: ("Draw pictures", LABEL)}


class Thing(NamedTuple):
    noun: str
    """In the API's codes: `job_not_found`."""
    stored_at: str
    page: str
    """Where its page lies, with `{}` for its id; empty where its list tells all of it."""
    name: str
    listed_at: str


THINGS: dict[Kind, Thing] = {
    "jobs": Thing("job", "/v1/jobs", "/jobs/{}", "The job", JOBS),
    "datasets": Thing("dataset", "/v1/datasets", "/datasets/{}", "The data set", DATASETS),
    "candidates": Thing("candidates", "/v1/candidates", "/label/draws/{}", "The pictures", LABEL),
    "plays": Thing("candidates", "/v1/candidates", "/playground/{}", "The drawing", PLAYGROUND),
    "labelings": Thing("labeling", "/v1/labelings", "/label/{}/results", "The labeling", LABEL),
    "aliases": Thing("alias", "/v1/aliases", "", "", MODELS),
}

ADDRESSES: tuple[tuple[str, Kind], ...] = (
    ("/jobs/", "jobs"),
    ("/datasets/", "datasets"),
    ("/label/draws/", "candidates"),
    ("/label/", "labelings"),
    ("/playground/", "plays"),
    *((f"/delete/{kind}/", kind) for kind in THINGS),
)
"""How the addresses begin that are about one thing, before its id; the first that fits decides."""

IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Way(NamedTuple):
    path: str
    name: str


def ways_out(asked: str, came_from: str, code: str, *, is_read: bool) -> list[Way]:
    """Where whoever asked for the path `asked` and got the problem `code` may go: to what it is about, to where they came from, and to the list.

    Each is put together here from a kind and an id, so nobody is led anywhere by an address that somebody else wrote. What is not there
    is left out, and so is the page that just could not be read.
    """
    *about, in_list = _ways(asked)
    before = _ways(came_from)[:1] if came_from else []
    useless = {asked} if is_read else set[str]()
    if (found := _thing(asked)) and code == f"{found[0].noun}_not_found":
        useless.add(found[0].page.format(found[1]))
    ways = [way for way in dict.fromkeys([*about, *before, in_list]) if way.path not in useless]
    return ways or [Way(JOBS, LISTS[JOBS])]


def _ways(path: str) -> list[Way]:
    """To the page of what a path is about, where it has one, and last to the list of its kind."""
    if path in FORMS:
        name, listed_at = FORMS[path]
        return [Way(path, name), Way(listed_at, LISTS[listed_at])]
    if (found := _thing(path)) is None:
        known = path if path in LISTS else JOBS
        return [Way(known, LISTS[known])]
    thing, identifier = found
    page = [Way(thing.page.format(identifier), thing.name)] if thing.page else []
    return [*page, Way(thing.listed_at, LISTS[thing.listed_at])]


def _thing(path: str) -> tuple[Thing, str] | None:
    """What a path is about, and its id."""
    start, kind = next((one for one in ADDRESSES if path.startswith(one[0])), ("", None))
    identifier = path.removeprefix(start).partition("/")[0]
    return (THINGS[kind], identifier) if kind and path not in FORMS and IDENTIFIER.fullmatch(identifier) else None
