"""What an endpoint is given: the parts of the service, and parameters that are all known."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from alignment_core.spec.mistakes import MOST, shown
from service.api.feeds import Feeds
from service.api.lookout import Lookout
from service.api.telemetry import Telemetry
from service.errors import FieldProblem, invalid_request
from service.queue import Bell
from service.scopes import is_linkable
from service.settings import Settings
from service.sign_ins import SignIns
from service.signed_links import PARAMETER
from service.store.catalog import Catalog
from service.store.database import Store
from service.store.objects import ObjectStore
from service.store.probe import StoreProbe
from service.store.pulses import JobPulse
from service.store.records import DatasetState, ExportState, PushState

_INDEX = re.compile(r"\[.*\]$", re.DOTALL)  # `metadata[team]` is one of `metadata[*]`


@dataclass(frozen=True)
class Parts:
    """Everything an endpoint may speak to; built once by `create_app`."""

    settings: Settings
    store: Store
    objects: ObjectStore
    objects_probe: StoreProbe
    catalog: Catalog
    bell: Bell
    telemetry: Telemetry
    jobs_lookout: Lookout[JobPulse]
    datasets_lookout: Lookout[DatasetState]
    exports_lookout: Lookout[ExportState]
    pushes_lookout: Lookout[PushState]
    feeds: Feeds
    sign_ins: SignIns

    @property
    def base_url(self) -> str:
        """What links begin with: the address that clients see, or nothing, as they know it anyway."""
        return (self.settings.public_url or "").rstrip("/")


def _parts(request: Request) -> Parts:
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]


def refuse_unknown_parameters(request: Request) -> None:
    """A misspelt filter must not look like one that matched everything: 422 names it and what there is."""
    route = request.scope["route"]
    known = {*_query_names(route.dependant), *([PARAMETER] if is_linkable(route) else [])}
    wrong = [name for name in request.query_params if not known & {name, _INDEX.sub("[*]", name)}]
    if wrong:
        expected = f"expected {', '.join(sorted(known))}" if known else "there are none here"
        raise invalid_request(
            [
                FieldProblem(
                    pointer=f"query:{shown(name)}", code="extra_forbidden", message=f"unknown parameter; {expected}"
                )
                for name in wrong[:MOST]
            ]
        )


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)
