"""What an endpoint is given: the parts of the service, and parameters that are all known."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from alignment_core.spec.mistakes import MOST, shown
from service.api.browsing import Browsed
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
from service.store.records.checkpoints import ExportState, PushState
from service.store.records.uploads import DatasetState

_INDEX = re.compile(r"\[.*\]$", re.DOTALL)  # `metadata[team]` is one of `metadata[*]`


@dataclass(frozen=True)
class Parts:
    """Everything an endpoint may speak to; built once by `create_app`."""

    settings: Settings
    store: Store
    objects: ObjectStore
    objects_probe: StoreProbe
    browsed: Browsed
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
    """A misspelt filter must not look like one that matched everything, nor one of two values like both: 422 names it and what there is."""
    route = request.scope["route"]
    parameters = dict(_query_parameters(route.dependant))
    known = {*parameters, *([PARAMETER] if is_linkable(route) else [])}
    expected = f"expected {', '.join(sorted(known))}" if known else "there are none here"
    problems: list[FieldProblem] = []
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if not known & {name, _INDEX.sub("[*]", name)}:
            code, message = "extra_forbidden", f"unknown parameter; {expected}"
        elif count > 1 and not parameters.get(name):
            code, message = "repeated", f"given {count} times; expected one value"
        else:
            continue
        problems.append(FieldProblem(pointer=f"query:{shown(name)}", code=code, message=message))
    if problems:
        raise invalid_request(problems[:MOST])


def _query_parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """The name of each, and whether it takes several values."""
    for parameter in dependant.query_params:
        kind = parameter.field_info.annotation
        yield parameter.alias, any(get_origin(one) is list for one in (kind, *get_args(kind)))
    for inner in dependant.dependencies:
        yield from _query_parameters(inner)
