"""What a route asks for, said once: GET reads, everything else submits. A route that means another thing says so with
`dependencies=[needs("admin")]`, and what asks for no key at all has no `ProjectDep` and lies outside of `/v1`.
"""

from dataclasses import dataclass
from typing import Any, get_args

from fastapi import Depends
from fastapi.routing import APIRoute

from service.store.records.projects import Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)  # each may what those before it may
READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Needs:
    """The scope that a route asks for, where its verb says another."""

    scope: Scope
    is_deed: bool | None = None  # whether it is written down, where its scope says another

    def __call__(self) -> None:
        """Read by `scope_of`; there is nothing to do."""


def needs(scope: Scope, *, is_deed: bool | None = None) -> Any:
    """For the `dependencies` of a route or a router. A deed is what stands in the audit log: what asks for more than `read`, unless said."""
    return Depends(Needs(scope, is_deed))


def scope_of(route: APIRoute) -> Scope:
    """The scope that a key must have for this route."""
    if said := _said_of(route):
        return max((one.scope for one in said), key=lambda scope: SCOPES.index(scope))
    return "read" if set(route.methods or ()) <= READING else "submit"


def _said_of(route: APIRoute) -> list[Needs]:
    return [one.dependency for one in route.dependencies if isinstance(one.dependency, Needs)]


def is_linkable(route: APIRoute) -> bool:
    """Whether a link may open it: a GET for any key whose answer is a file or a stream, and not JSON alone."""
    content = route.responses.get(200, {}).get("content", {})
    is_read = "GET" in (route.methods or ()) and scope_of(route) == "read"
    return is_read and route.path.startswith("/v1/") and any(kind != "application/json" for kind in content)


def is_deed(route: APIRoute, method: str) -> bool:
    """Whether a request of this route is written into the audit log: it would change something."""
    if method in READING:
        return False
    said = [one.is_deed for one in _said_of(route) if one.is_deed is not None]
    return any(said) if said else scope_of(route) != "read"
