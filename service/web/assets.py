"""Scripts and styles, below a name that is the hash of all of them: a browser keeps one for ever, and never one that is old."""

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from service.errors import not_found

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@cache
def files() -> dict[str, Path]:
    """What is served, by its name below `static/`."""
    found = (path for path in sorted(STATIC.rglob("*")) if path.suffix in MEDIA_TYPES)
    return {path.relative_to(STATIC).as_posix(): path for path in found}


@cache
def _digest() -> str:
    sums = (f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in files().items())
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]


def address(name: str) -> str:
    """Where a file is, without what a proxy puts before it."""
    assert name in files(), name
    return f"/static/{_digest()}/{name}"


@router.api_route("/static/{digest}/{name:path}", methods=["GET", "HEAD"])
def send_static_file(digest: str, name: str) -> Response:
    """One of the files; under an older digest it is the file of now, and not kept."""
    path = files().get(name)
    if path is None:
        raise not_found("file", name)
    keep = FOR_EVER if digest == _digest() else "no-store"
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers={"Cache-Control": keep})
