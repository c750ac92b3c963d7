"""One file over HTTP: resumed where it broke off, checked, and only then given its name."""

import hashlib
import time
from pathlib import Path, PurePosixPath

import httpx

from attune.errors import AttuneError
from attune.resources import CheckpointFile

CHUNK_BYTES = 2**20
MOST_TRIES = 5


def download_file(http: httpx.Client, url: str, file: CheckpointFile, target: Path) -> Path:
    """Download `url` as `target` unless it is there; `AttuneError` when its size or sha256 is not the promised one."""
    if target.is_file() and _sha256(target) == file.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{file.sha256[:12]}.part")
    for tries in range(1, MOST_TRIES + 1):
        try:
            _fetch(http, url, partial, file.size_bytes)
            break
        except httpx.TransportError as error:
            if tries == MOST_TRIES:
                raise AttuneError.unreachable(http.base_url, error) from error
            time.sleep(0.2 * 2**tries)
    if partial.stat().st_size != file.size_bytes or _sha256(partial) != file.sha256:
        partial.unlink()
        raise AttuneError(
            {"code": "download_altered", "detail": f"{file.path}: size or sha256 is not the promised one"}
        )
    partial.replace(target)
    return target


def inside(path: str) -> PurePosixPath:
    """A server's file name as a path that cannot leave the folder it is put into."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or not pure.parts:
        raise AttuneError({"code": "unsafe_path", "detail": f"the server named a file {path!r}, which is not relative"})
    return pure


def _fetch(http: httpx.Client, url: str, partial: Path, size_bytes: int) -> None:
    """Append what is missing of the file; starts over when the server sends all of it."""
    start = partial.stat().st_size if partial.exists() else 0
    if start == size_bytes:
        partial.touch()
        return
    if start > size_bytes:
        partial.unlink()
        start = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with http.stream("GET", url, headers=headers) as response:
        if not response.is_success:
            response.read()
            raise AttuneError.of_response(response)
        with partial.open("ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as output:
            for chunk in response.iter_bytes(CHUNK_BYTES):
                output.write(chunk)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
