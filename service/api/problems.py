"""How errors look in the OpenAPI document: one schema, an example for each status and code."""

from http import HTTPStatus
from typing import Any

from service.errors import PROBLEM_MEDIA_TYPE
from service.nouns import none_of, spoken

Responses = dict[int | str, dict[str, Any]]

PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}

REQUEST_ID_EXAMPLE = "req_9f2c6d1e0b7a4c3d8e5f0a1b"

QUOTA_EXAMPLE = {"name": "submits", "limit": 60.0, "used": 60.0, "resets_at": "2026-11-20T10:00:00Z"}

# status -> (code, detail, errors)
_EXAMPLES: dict[int, tuple[str, str, list[dict[str, str]]]] = {
    400: ("bad_request", "There was an error parsing the body", []),
    401: ("unauthorized", "send a valid API key as `Authorization: Bearer KEY`", []),
    403: ("cross_site_request", "a page of another site sent this request, and this server asks for no key", []),
    404: ("job_not_found", "there is no job 'job_01kaf0h2v7x3m5q8r1s4t6w9yz' in this project", []),
    408: ("sender_stalled", "fewer than 65536 bytes of the body came in 60 seconds; send it again", []),
    409: ("conflict", "a job that is succeeded cannot be cancelled", []),
    413: ("content_too_large", "the body is larger than the 4194304 bytes that are accepted here", []),
    416: ("range_not_satisfiable", "the range bytes=9000- lies behind the last byte; the file has 8192 bytes", []),
    422: (
        "invalid_request",
        "/spec/method/beta: Input should be greater than 0",
        [{"pointer": "/spec/method/beta", "code": "greater_than", "message": "Input should be greater than 0"}],
    ),
    429: (
        "quota_exceeded",
        "this project has 60 of 60 jobs submitted in this hour, until 2026-11-20T10:00:00Z",
        [],
    ),
    500: ("internal_error", "something went wrong here; the request id finds it in the server's log", []),
    503: ("unavailable", "the database does not answer; try again in a moment", []),
    507: ("object_store_full", "the object store is full; it stays so until the operator of this server mends it", []),
}


def problem_example(status: int, code: str | None = None, detail: str | None = None) -> dict[str, Any]:
    """A problem document as it would be sent."""
    default_code, default_detail, errors = _EXAMPLES[status]
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or default_detail,
        "code": code or default_code,
        "request_id": REQUEST_ID_EXAMPLE,
        "errors": errors,
    }
    return example | ({"quota": QUOTA_EXAMPLE} if example["code"] == "quota_exceeded" else {})


def problem(status: int, code: str | None = None, detail: str | None = None, *, when: str | None = None) -> Responses:
    """The `responses` entry of one error status; `when` says in words when it is answered."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": PROBLEM_SCHEMA, "example": problem_example(status, code, detail)}}
    return {status: {"description": when or HTTPStatus(status).phrase, "content": content}}


def problems(*statuses: int) -> Responses:
    """The `responses` entries of several error statuses, with their usual examples."""
    return {key: value for status in statuses for key, value in problem(status).items()}


def missing(kind: str, prefix: str) -> Responses:
    """404 of one kind of thing; another project's looks the same as none."""
    detail = f"{none_of(kind, f'{prefix}_01kaf0h2v7x3m5q8r1s4t6w9yz')} in this project"
    return problem(404, f"{kind}_not_found", detail, when=f"No such {spoken(kind)} in this project")
