"""Prompt sets: upload one, read its prompts, download it, delete it. A spec names one in place of a list of prompts."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from pydantic import TypeAdapter

from alignment_core.prompt_files import PromptsRefused
from alignment_core.spec.sources import ColumnName
from service.api.checked_uploads import checked, created, form_of, name_of, same_request
from service.api.context import Parts, PartsDep
from service.api.downloads import file_responses, send_file
from service.api.idempotency import OnceDep
from service.api.lookup import PromptSetDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problems
from service.api.routers import api_router
from service.api.schemas.prompt_sets import PromptOfSet, PromptSet
from service.api.uploads import Upload, on_disk, receive, told_disk_errors
from service.auth import ProjectDep
from service.errors import FieldProblem, invalid_request
from service.prompt_reading import Read, read_apart
from service.store import keys, prompt_sets
from service.store.ids import new_id
from service.store.limits import QuotaExceeded
from service.store.records.base import StoredFile

router = api_router(prefix="/v1/prompt_sets", tags=["prompt sets"], responses=problems(401, 403, 422, 500, 503))

UPLOAD_PATH = "/v1/prompt_sets"
MOST_UPLOAD_BYTES = 128 << 20
JSONL = "application/octet-stream"  # what generated clients know how to keep

AT_ONCE = CapacityLimiter(2)
"""So many files are read at the same time, each in a process with its own memory; others wait, and hold up nobody else's requests."""

FORM = form_of(
    "Text with a prompt a line (.txt), jsonl, a JSON list, CSV, TSV or parquet; at most 128 MiB and a million prompts.",
    {
        "column": {
            "type": "string",
            "maxLength": 200,
            "description": "Which column or key holds the prompts, where its name is none of prompt, caption, text.",
        }
    },
)

_column: TypeAdapter[str] = TypeAdapter(ColumnName)


@router.post(
    "",
    status_code=201,
    response_model=PromptSet,
    summary="Upload prompts",
    response_description="The prompt set, ready to be named in specs",
    responses=created("Where the new prompt set is."),
    openapi_extra=FORM,
)
async def create_prompt_set(request: Request, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Store prompts as a set that specs name: `"prompts": "ps_..."`. Each is kept once, in the order of the file.

    It is read as it arrives: the answer says which rows were empty or repeated others, or, with 422, which cannot be
    prompts. With curl: `curl -F file=@prompts.txt http://localhost:8000/v1/prompt_sets`
    """
    limit = min(parts.settings.max_upload_bytes, MOST_UPLOAD_BYTES)
    async with receive(request, parts.settings, limit, frozenset({"name", "column"})) as upload:
        name = name_of(upload)
        column = checked(_column, "column", upload.fields["column"]) if "column" in upload.fields else None

        def create(prompt_set_id: str | None) -> PromptSet:
            return made_prompt_set(parts, project_id, upload, prompt_set_id, name=name, column=column)

        same = {**same_request(upload, name), "column": column}
        return await to_thread.run_sync(once, "ps", UPLOAD_PATH, same, create, limiter=AT_ONCE)


def made_prompt_set(
    parts: Parts,
    project_id: str,
    upload: Upload,
    prompt_set_id: str | None,
    *,
    name: str | None,
    column: str | None,
    upload_id: str | None = None,
) -> PromptSet:
    """A prompt set of a file that has arrived, in one body or as the upload `upload_id`: read, its prompts kept as jsonl."""
    prompt_set_id = prompt_set_id or new_id("ps")
    key = keys.prompt_set_key(project_id, prompt_set_id)
    with on_disk(parts.settings) as kept:
        with told_disk_errors():
            read = _read(upload, column, Path(kept.name))
        parts.objects.put_file(key, Path(kept.name))
    file = StoredFile(path="prompts.jsonl", size_bytes=read.size_bytes, sha256=read.sha256, object_key=key)
    try:
        made = prompt_sets.create(
            parts.store,
            prompt_set_id=prompt_set_id,
            project_id=project_id,
            filename=upload.filename,
            name=name,
            report=read.report,
            file=file,
            upload_id=upload_id,
        )
    except QuotaExceeded:
        parts.objects.delete(key)
        raise
    return PromptSet.of(made)


def _read(upload: Upload, column: str | None, target: Path) -> Read:
    """What the upload holds, its prompts written to `target`; 422 that names the rows."""
    try:
        return read_apart(upload.path, upload.filename, target, column=column)
    except PromptsRefused as error:
        problems = [FieldProblem(pointer="/file", code=one.code, message=str(one)) for one in error.problems]
        raise invalid_request(problems) from error


@router.get("", summary="List prompt sets")
def list_prompt_sets(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[PromptSet]:
    """The project's prompt sets, newest first."""
    page = prompt_sets.list_prompt_sets(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([PromptSet.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{prompt_set_id}", summary="Look at a prompt set", responses=missing("prompt_set", "ps"))
def get_prompt_set(found: PromptSetDep) -> PromptSet:
    """What a prompt set is called, how many prompts it has, and their hash."""
    return PromptSet.of(found)


@router.get("/{prompt_set_id}/prompts", summary="Read a prompt set", responses=missing("prompt_set", "ps"))
def list_prompts(found: PromptSetDep, parts: PartsDep, paging: PagingDep) -> Page[PromptOfSet]:
    """The prompts, the first of the file first. `after` is a place; to read all of a long set, download it."""
    start = _place(paging.after)
    lines = _lines(parts.objects.open_range(found.object_key))
    wanted = islice(enumerate(lines, 1), start, start + paging.limit)
    data = [PromptOfSet(id=str(place), prompt=json.loads(line)["prompt"]) for place, line in wanted]
    return paging.page(data, has_more=bool(data) and int(data[-1].id) < found.num_prompts)


def _place(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal() and len(after) < 10):
        message = "expected the place of a prompt, a whole number"
        raise invalid_request([FieldProblem(pointer="query:after", code="entry_not_found", message=message)])
    return int(after)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of what comes in pieces; what was begun is never longer than a chunk and a prompt."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


@router.api_route(
    "/{prompt_set_id}/file",
    methods=["GET"],
    response_class=Response,
    summary="Download a prompt set",
    responses=file_responses(JSONL, "prompt_set", "ps"),
)
@router.head("/{prompt_set_id}/file", include_in_schema=False)
def download_prompt_set(request: Request, found: PromptSetDep, parts: PartsDep) -> Response:
    """The prompts as jsonl, an object with the key `prompt` a line."""
    file = StoredFile(
        path="prompts.jsonl", size_bytes=found.size_bytes, sha256=found.file_sha256, object_key=found.object_key
    )
    return send_file(request, parts, file, f"{found.id}.jsonl", JSONL)
