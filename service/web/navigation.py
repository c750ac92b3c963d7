"""What the navigation of every page leads to, and to which of it a page belongs."""

from typing import NamedTuple

JOBS, NEW_JOB, DATASETS, MODELS, LABEL, PLAYGROUND = "/", "/jobs/new", "/datasets", "/models", "/label", "/playground"

ENTRIES = (
    (JOBS, "Jobs"),
    (NEW_JOB, "New job"),
    (DATASETS, "Data sets"),
    (MODELS, "Models"),
    (LABEL, "Label"),
    (PLAYGROUND, "Playground"),
)

SECTIONS = (
    (NEW_JOB, NEW_JOB),
    ("/jobs", JOBS),
    ("/compare", JOBS),
    *((entry, entry) for entry in (DATASETS, MODELS, LABEL, PLAYGROUND)),
)
"""Where pages lie, and the entry that they belong to; the first that fits decides."""


class Link(NamedTuple):
    path: str
    name: str
    current: str
    """`aria-current`: `page` on the page itself, `true` on those of its section, else empty."""


def links(here: str) -> list[Link]:
    """The entries as a page at the path `here` shows them."""
    section = next((entry for start, entry in SECTIONS if here == start or here.startswith(f"{start}/")), None)
    return [Link(path, name, "page" if path == here else "true" if path == section else "") for path, name in ENTRIES]
