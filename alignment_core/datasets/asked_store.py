"""A store of shards that another process asks for this one (`asking.py`)."""

from pathlib import Path
from typing import Any, Literal

from alignment_core.datasets.asking import Asking

Verb = Literal["names", "get", "put", "remove"]


class AskedStore:
    """`ShardStore` behind a folder. Files are exchanged in `shelves`, the folder of this run's shards, by namespace."""

    def __init__(self, exchange: Path, shelves: Path) -> None:
        self._asking, self._shelves = Asking(exchange), shelves

    def names(self, namespace: str) -> set[str]:
        return set(self._ask("names", namespace, "")["names"])

    def get(self, namespace: str, name: str, path: Path) -> None:
        self._ask("get", namespace, name, path)

    def put(self, namespace: str, path: Path) -> None:
        self._ask("put", namespace, path.name, path)

    def remove(self, namespace: str, name: str) -> None:
        self._ask("remove", namespace, name)

    def _ask(self, verb: Verb, namespace: str, name: str, path: Path | None = None) -> dict[str, Any]:
        place = None if path is None else path.relative_to(self._shelves).as_posix()
        return self._asking.ask({"verb": verb, "namespace": namespace, "name": name, "place": place})
