"""One file over HTTP: resumed where it broke off, checked, and only then given its name."""

import hashlib
import time
from pathlib import Path, PurePosixPath

import httpx

from attune.errors import AttuneError
from attune.resources.checkpoints import CheckpointFile

MOST_TRIES = 5  # in a row that bring nothing new


def download_file(http: httpx.Client, url: str, file: CheckpointFile, target: Path) -> Path:
    """Download `url` as `target` unless it is there; `AttuneError` when its size or sha256 is not the promised one."""
    if target.is_file() and _sha256(target) == file.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{file.sha256[:12]}.part")
    _fetch_all(http, url, partial, file.size_bytes)
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


def _fetch_all(http: httpx.Client, url: str, partial: Path, size_bytes: int) -> None:
    """Fetch until the server has nothing more to send, going on where a connection broke."""
    tries = 0
    while True:
        had = _size(partial)
        try:
            return _fetch(http, url, partial, size_bytes)
        except httpx.TransportError as error:
            tries = 0 if _size(partial) > had else tries + 1
            if tries == MOST_TRIES:
                raise AttuneError.unreachable(http.base_url, error) from error
        time.sleep(0.1 * 2**tries)


def _fetch(http: httpx.Client, url: str, partial: Path, size_bytes: int) -> None:
    """Append what is missing of the file; starts over when the server sends all of it."""
    start = _size(partial)
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
            for chunk in response.iter_bytes():  # as it comes: a fixed size would lose what came before a break
                output.write(chunk)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
