"""Health over HTTP."""

from typing import Any, Literal

from pydantic import Field

from service.api.schemas.base import Resource, with_example


class Liveness(Resource):
    """The process answers; nothing else was asked."""

    model_config = with_example({"status": "ok"})

    status: Literal["ok"] = "ok"


READINESS_EXAMPLE: dict[str, Any] = {
    "status": "ok",
    "checks": {
        "database": {"ok": True, "error": None},
        "object_store": {"ok": True, "error": None},
        "broker": {"ok": True, "error": None},
    },
}


class Check(Resource):
    """One part that this service leans on."""

    ok: bool
    error: str | None = Field(
        description="The kind of failure, such as `missing`, `denied` or `full` of the object store; the server's log has the rest."
    )


class Readiness(Resource):
    """Whether the parts behind the service answer."""

    model_config = with_example(READINESS_EXAMPLE)

    status: Literal["ok", "degraded"] = Field(
        description="`degraded`: the broker does not answer (jobs are taken all the same and start when it is back), or the "
        "object store is full or read-only (what is stored can be read)."
    )
    checks: dict[str, Check]
