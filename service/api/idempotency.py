"""`Idempotency-Key`: a creating POST that is sent twice creates once, and the second answer is the first one's copy.

The header is optional. The same key with another body is refused with 422, and while the first request is at work with
409. A request that failed leaves its key free, since it created nothing.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, Header
from fastapi.responses import JSONResponse

from alignment_core.spec import sha256_of_json
from service.api.context import Parts, PartsDep
from service.api.problems import Responses, problem
from service.api.schemas.base import Entry
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem
from service.store import idempotency
from service.store.ids import Prefix

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Any text of your own, such as a UUID. Sending the same request again under the same key returns "
        "the first answer and creates nothing; after a day the key is forgotten.",
        examples=["0d9e8f7a-4b1c-4a5e-9c3d-2f6b7a8c9d0e"],
    ),
]

IN_FLIGHT: Responses = problem(
    409,
    "idempotency_in_flight",
    "the first request with this Idempotency-Key has not been answered yet; try again in a moment",
    when="The first request with this `Idempotency-Key` is still at work",
)


class Once:
    """One creating request, with its key or without."""

    def __init__(self, parts: Parts, project_id: str, key: str | None) -> None:
        self._parts = parts
        self._project_id = project_id
        self._key = key

    def __call__(
        self,
        prefix: Prefix,
        collection: str,
        request: object,
        create: Callable[[str | None], Entry],
        elsewhere: Mapping[str, Callable[[str], Any]] | None = None,
        status: Literal[201, 202] = 201,
    ) -> JSONResponse:
        """`status` with what `create` returns, with 201 its `Location` under `collection`, or the first request's answer again.

        `request` is what tells requests apart, as JSON. `create` is given the id that the new resource must have, or
        None without a key. Fields that the resource itself holds and never changes are not stored a second time with the
        answer: `elsewhere` reads each of them by the resource's id.
        """
        apart = elsewhere or {}
        if self._key is None:
            return self._answer(create(None).model_dump(mode="json"), collection, status)
        match self._begin(prefix, request, self._key):
            case idempotency.Replay(body=body):
                left_out = {name: read(body["id"]) for name, read in apart.items() if name not in body}
                return self._answer({**body, **left_out}, collection, status, {"Idempotency-Replayed": "true"})
            case idempotency.Fresh(resource_id=resource_id):
                return self._answer(self._create(self._key, resource_id, create, apart, status), collection, status)

    def _begin(self, prefix: Prefix, request: object, key: str) -> idempotency.Fresh | idempotency.Replay:
        try:
            digest = sha256_of_json({"creates": prefix, "request": request})
            return idempotency.begin(self._parts.store, self._project_id, key, digest, prefix)
        except idempotency.InFlight as error:
            detail = "the first request with this Idempotency-Key has not been answered yet; try again in a moment"
            raise ApiError(409, "idempotency_in_flight", detail, headers={"Retry-After": "1"}) from error
        except idempotency.KeyReused as error:
            message = "this Idempotency-Key came before with another request"
            field = FieldProblem(pointer="header:Idempotency-Key", code="idempotency_key_reused", message=message)
            raise ApiError(422, "idempotency_key_reused", message, errors=[field]) from error

    def _create(
        self, key: str, resource_id: str, create: Callable[[str | None], Entry], apart: Collection[str], status: int
    ) -> dict[str, Any]:
        try:
            body = create(resource_id).model_dump(mode="json")
        except BaseException:
            idempotency.abandon(self._parts.store, self._project_id, key)
            raise
        kept = {name: value for name, value in body.items() if name not in apart}
        idempotency.complete(self._parts.store, self._project_id, key, status, kept)
        return body

    def _answer(
        self, body: dict[str, Any], collection: str, status: int, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        location = {"Location": f"{self._parts.base_url}{collection}/{body['id']}"} if status == 201 else {}
        return JSONResponse(body, status, {**location, **(headers or {})})


def _once(parts: PartsDep, project_id: ProjectDep, key: KeyHeader = None) -> Once:
    return Once(parts, project_id, key)


OnceDep = Annotated[Once, Depends(_once)]
