"""Where an error becomes HTTP: one shape, `application/problem+json` (RFC 9457), for everything that is not a success.

Endpoints raise `ApiError`, the store raises its own errors, FastAPI and Starlette raise theirs; `install` gives each of
them a handler here and nowhere else. What only the operator may see (a traceback, a driver's message) goes to the log
under the request's id and never into an answer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from alignment_core.spec.mistakes import MOST, mistakes, sentence
from service.nouns import none_of
from service.rate_limits import headers_of, seconds_until
from service.store.limits import QuotaExceeded, QuotaName
from service.store.objects import ObjectNotFound
from service.store.unavailable import WORDS, ObjectsUnavailable, Reason, heals, reason_of_database

log = structlog.get_logger()

PROBLEM_MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

# What a status means when nothing more precise is known; `code` is what a program should look at.
CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "sender_stalled",
    409: "conflict",
    413: "content_too_large",
    416: "range_not_satisfiable",
    422: "invalid_request",
    429: "quota_exceeded",
    500: "internal_error",
    503: "unavailable",
    507: "insufficient_storage",
}


class FieldProblem(BaseModel):
    """One thing that is wrong, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pointer: str = Field(
        description="JSON pointer (RFC 6901) into the body, or `query:NAME`, `path:NAME`, `header:NAME`.",
        examples=["/spec/method/beta"],
    )
    code: str = Field(description="Stable name of the rule that was broken.", examples=["greater_than"])
    message: str = Field(description="What was expected.", examples=["must be greater than 0"])


class UsedUp(BaseModel):
    """The quota that stood in the way, and how much of it is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: QuotaName
    limit: float
    used: float
    resets_at: datetime | None = Field(description="Null where only the end of a job or a deletion gives it back.")


class Problem(BaseModel):
    """An error, after RFC 9457."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(default="about:blank", description="`about:blank`: the meaning is in `status` and `code`.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What happened, in a sentence.")
    code: str = Field(description="Stable name of the error for programs.", examples=["job_not_found"])
    request_id: str = Field(description="Quote it when asking for help; the server's log has it too.")
    errors: list[FieldProblem] = Field(description="The single fields that were wrong, when there are any.")
    quota: UsedUp | None = Field(None, description="Only with the code `quota_exceeded`.")


class ApiError(Exception):
    """An answer that is an error: `code` is stable and snake_case, `detail` says what was expected."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        quota: UsedUp | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.quota = quota


def not_found(kind: str, identifier: str) -> ApiError:
    """404 for something that is not there, or not this project's: the two look the same from outside."""
    return ApiError(404, f"{kind}_not_found", f"{none_of(kind, identifier)} in this project")


def invalid_request(errors: Sequence[FieldProblem]) -> ApiError:
    """422 that names every field; the first three are in its sentence too."""
    detail = "; ".join(f"{found.pointer or 'body'}: {found.message}" for found in errors[:3])
    return ApiError(422, "invalid_request", detail, errors=errors)


def not_json(request: Request) -> ApiError:
    """422 for a body that was not said to be JSON."""
    given = request.headers.get("content-type")
    message = f"send Content-Type: application/json ({f'this was {given!r}' if given else 'there was none'})"
    return invalid_request([FieldProblem(pointer="header:Content-Type", code="not_json", message=message)])


def problem_response(request: Request, error: ApiError) -> JSONResponse:
    """The problem document of an error."""
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id_of(request),
        errors=error.errors,
        quota=error.quota,
    )
    left_out = {"quota"} if problem.quota is None else None
    return JSONResponse(
        problem.model_dump(mode="json", exclude=left_out), error.status, error.headers, PROBLEM_MEDIA_TYPE
    )


def request_id_of(request: Request) -> str:
    """The id that the middleware gave this request."""
    return request.scope.get("state", {}).get("request_id", "")


def internal_error() -> ApiError:
    """500: says nothing of what went wrong, since the log does."""
    return ApiError(500, "internal_error", "something went wrong here; the request id finds it in the server's log")


# --- validation ----------------------------------------------------------------------------------------------------


def field_problems(error: RequestValidationError | ValidationError, body: Any, model: Any = None) -> list[FieldProblem]:
    """Pydantic's errors with pointers that hold in the JSON that was sent, at most a hundred. Values are never echoed.

    FastAPI's locations begin with where the value was (`body`, `query`, ...); pydantic's own are within the body, which was
    to be a `model`.
    """
    if isinstance(error, ValidationError):
        return _in_body(error.errors(include_url=False), body, model)
    found = error.errors()
    elsewhere = [one for one in found if one["loc"][0] != "body" or one["type"] == "json_invalid"]
    inside = [
        {**one, "loc": one["loc"][1:]} for one in found if one["loc"][0] == "body" and one["type"] != "json_invalid"
    ]
    return [*map(_outside_of_body, elsewhere[:MOST]), *_in_body(inside, body, model)]


def _in_body(errors: Sequence[Mapping[str, Any]], body: Any, model: Any) -> list[FieldProblem]:
    return [
        FieldProblem(pointer=one.pointer, code=one.code, message=one.message) for one in mistakes(errors, body, model)
    ]


def _outside_of_body(found: Mapping[str, Any]) -> FieldProblem:
    """What is wrong with a parameter or a header, or with JSON that could not be read at all."""
    where, *rest = found["loc"]
    if found["type"] == "json_invalid":
        message = f"the body is not JSON: {found['ctx']['error']} at character {rest[-1]}"
        return FieldProblem(pointer="", code="json_invalid", message=message)
    name = ".".join(str(part) for part in rest)
    return FieldProblem(pointer=f"{where}:{name}", code=found["type"], message=sentence(found))


# --- handlers ------------------------------------------------------------------------------------------------------


def _answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return problem_response(request, error)


def _answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if error.body is not None and "json" not in request.headers.get("content-type", "").lower():
        return problem_response(request, not_json(request))
    errors = field_problems(error, error.body, _body_model(request))
    return problem_response(request, invalid_request(errors))


def _body_model(request: Request) -> Any:
    """The model of the route's JSON body, if it has one."""
    parameters = request.scope["route"].dependant.body_params
    return parameters[0].field_info.annotation if parameters else None


def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if isinstance(error.__cause__, UnicodeDecodeError | RecursionError | ValueError):  # of reading the body
        return problem_response(request, ApiError(400, "bad_request", _unreadable(error.__cause__)))
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} does not answer {request.method}",
    }
    detail = details.get(status) if status in details else str(error.detail)
    headers = {
        **(error.headers or {}),
        **({"Allow": _allowed(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}),
    }
    return problem_response(request, ApiError(status, CODES.get(status, "error"), str(detail), headers=headers))


def _unreadable(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"the body is not UTF-8: byte {error.start} is no part of a character"
        case RecursionError():
            return "the body is nested too deeply"
        case _:
            return "the body has a number with too many digits"


def _allowed(request: Request) -> str:
    """`Allow` of a path: Starlette names the methods of one route alone, and each verb of ours is a route of its own."""
    return ", ".join(method for method in METHODS if _is_answered(request, method))


def _is_answered(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _answer_database_error(request: Request, error: Exception) -> JSONResponse:
    reason = reason_of_database(error.orig) if isinstance(error, DBAPIError) else "unreachable"
    log.error("database_unavailable", reason=reason, error=repr(error))
    return problem_response(request, unavailable("database", reason))


def _answer_object_store_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ObjectsUnavailable)
    log.error("object_store_unavailable", reason=error.reason, error=repr(error))
    return problem_response(request, unavailable("object store", error.reason))


def _answer_lost_file(request: Request, error: Exception) -> JSONResponse:
    log.error("file_lost", error=repr(error))
    return problem_response(request, ApiError(404, "file_lost", "the object store does not have this file any more"))


def _answer_quota(request: Request, error: Exception) -> JSONResponse:
    """429 for what a client that comes back later may have, 403 for what is all there is; both say which quota it was."""
    assert isinstance(error, QuotaExceeded)
    found = error.standing
    assert found.limit is not None
    quota = UsedUp(name=found.name, limit=found.limit, used=found.used, resets_at=found.resets_at)
    if found.name not in ("jobs", "submits"):
        return problem_response(request, ApiError(403, "quota_exceeded", str(error), quota=quota))
    headers = headers_of(found)
    if found.resets_at is not None:
        headers["Retry-After"] = str(seconds_until(found.resets_at))
    return problem_response(request, ApiError(429, "quota_exceeded", str(error), quota=quota, headers=headers))


def unavailable(part: str, reason: Reason) -> ApiError:
    """503, or 507 for want of room; only what heals by itself is worth a client's second try."""
    if heals(reason):
        detail = f"the {part} {WORDS[reason]}; try again in a moment"
        return ApiError(503, "unavailable", detail, headers={"Retry-After": "2"})
    status = 507 if reason == "full" else 503
    code = f"{part.replace(' ', '_')}_{reason}"
    return ApiError(status, code, f"the {part} {WORDS[reason]}; it stays so until the operator of this server mends it")


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document; unexpected ones are answered by the middleware."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    for broken in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(broken, _answer_database_error)
    app.add_exception_handler(QuotaExceeded, _answer_quota)
    app.add_exception_handler(ObjectsUnavailable, _answer_object_store_error)
    app.add_exception_handler(ObjectNotFound, _answer_lost_file)
