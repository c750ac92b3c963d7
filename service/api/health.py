"""Whether the service lives, whether the parts behind it answer, and what it counted."""

from collections.abc import Callable

import sqlalchemy as sa
import structlog
from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.context import Parts, PartsDep
from service.api.problems import problem, problems
from service.api.routers import api_router
from service.api.schemas.health import Check, Liveness, Readiness
from service.errors import ApiError, FieldProblem
from service.store.unavailable import ObjectsUnavailable

router = api_router(tags=["health"], responses=problems(500))

log = structlog.get_logger()

METRICS_EXAMPLE = (
    '# HELP attune_jobs Jobs by state, in all projects.\n# TYPE attune_jobs gauge\nattune_jobs{state="running"} 1.0\n'
)


@router.get("/healthz", summary="Does the process answer?")
def healthz() -> Liveness:
    """200 as long as the process answers; it leans on nothing else, so restarting it on failure makes sense."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Do the parts behind it answer?",
    responses=problem(503, detail="not ready: database", when="The database or the object store cannot be used"),
)
def readyz(parts: PartsDep) -> Readiness:
    """503 when the database or the object store cannot be used, since then no request can be served.

    A broker that does not answer delays jobs, and an object store that is full or read-only refuses uploads and new
    checkpoints; all else goes on: then this is 200 with `status: degraded`. The object store is asked for what is really
    needed, a small object that is written (once a minute at most) and read.
    """
    checks = {
        "database": _check("database", lambda: _ping_database(parts)),
        "object_store": _check("object_store", parts.objects_probe),
        "broker": _check("broker", parts.bell.check),
    }
    broken = [name for name, check in checks.items() if not check.ok]
    if any(name == "database" or (name == "object_store" and not _can_read(checks[name])) for name in broken):
        errors = [FieldProblem(pointer=name, code="unavailable", message=checks[name].error or "") for name in broken]
        raise ApiError(503, "unavailable", f"not ready: {', '.join(broken)}", errors=errors)
    return Readiness(status="degraded" if broken else "ok", checks=checks)


def _check(name: str, ping: Callable[[], None]) -> Check:
    try:
        ping()
    except ObjectsUnavailable as error:
        log.warning("part_unavailable", part=name, reason=error.reason, error=repr(error))
        return Check(ok=False, error=error.reason)
    except Exception as error:  # noqa: BLE001  whatever keeps a part from answering is the finding
        log.warning("part_unavailable", part=name, error=repr(error))
        return Check(ok=False, error=type(error).__name__)
    return Check(ok=True, error=None)


def _can_read(object_store: Check) -> bool:
    return object_store.error in ("full", "read_only")


def _ping_database(parts: Parts) -> None:
    with parts.store.read() as session:
        session.execute(sa.text("SELECT 1"))


@router.get(
    "/metrics",
    response_class=Response,
    summary="Counters for Prometheus",
    responses={
        200: {
            "description": "Requests by route and status, jobs by state",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": METRICS_EXAMPLE}},
        }
    },
)
def prometheus(parts: PartsDep) -> Response:
    """Requests and their times, and how many jobs are in which state, in Prometheus's text format."""
    return Response(parts.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)
