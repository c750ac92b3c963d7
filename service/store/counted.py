"""CountedObjects: an object store whose failures are counted, by their reason, whoever runs into them."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.store.objects import ObjectInfo, ObjectStore
from service.store.unavailable import ObjectsUnavailable, Reason


class CountedObjects:
    def __init__(self, objects: ObjectStore, count: Callable[[Reason], None]) -> None:
        self._objects = objects
        self._count = count

    def put_file(self, key: str, path: Path) -> None:
        with self._counting():
            self._objects.put_file(key, path)

    def put_bytes(self, key: str, content: bytes) -> None:
        with self._counting():
            self._objects.put_bytes(key, content)

    def get_file(self, key: str, path: Path) -> None:
        with self._counting():
            self._objects.get_file(key, path)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._counting():  # the object is looked up before this returns
            chunks = self._objects.open_range(key, start, end)
        return self._counted(chunks)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._counting():
            return self._objects.list(prefix)

    def head(self, key: str) -> ObjectInfo:
        with self._counting():
            return self._objects.head(key)

    def delete(self, key: str) -> None:
        with self._counting():
            self._objects.delete(key)

    def url(self, key: str, expires_seconds: int, filename: str) -> str | None:
        with self._counting():
            return self._objects.url(key, expires_seconds, filename)

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self._counting():
            yield from chunks

    @contextmanager
    def _counting(self) -> Generator[None]:
        try:
            yield
        except ObjectsUnavailable as error:
            self._count(error.reason)
            raise
