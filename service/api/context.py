"""What an endpoint is given: the parts of the service, the caller's project, and pages of limited size."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request

from service.api.telemetry import Telemetry
from service.errors import ApiError, FieldProblem
from service.queue import Bell
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.database import Store
from service.store.objects import ObjectStore


@dataclass(frozen=True)
class Parts:
    """Everything an endpoint may speak to; built once by `create_app`."""

    settings: Settings
    store: Store
    objects: ObjectStore
    catalog: Catalog
    bell: Bell
    telemetry: Telemetry


def _parts(request: Request) -> Parts:
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]


def _limit(
    parts: PartsDep, limit: Annotated[int, Query(ge=1, le=1000, description="Entries on a page, at most.")] = 20
) -> int:
    most = parts.settings.max_list_limit
    if limit > most:
        message = f"this server's pages hold at most {most} entries"
        too_long = FieldProblem(pointer="query:limit", code="less_than_equal", message=message)
        raise ApiError(422, "invalid_request", message, errors=[too_long])
    return limit


LimitDep = Annotated[int, Depends(_limit)]
