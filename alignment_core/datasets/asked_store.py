"""A store that another process asks for this one: questions and answers are files in a folder that both see.

A training process holds no keys of an object store, and may run on another machine than the worker that does; all that the two
share is a folder (`worker/shards.py` is the other side). A question is a name and no path: where files lie is agreed.
"""

import json
import time
import uuid
from pathlib import Path
from typing import Any, Literal

from alignment_core.datasets.shard_store import NotStored
from alignment_core.errors import AlignmentError

ASKED, ANSWERED = "asked", "answered"
LOOK_EVERY_SECONDS = 0.02
PATIENCE_SECONDS = 3600.0  # whoever answers has a patience of its own, and this process ends with it

Verb = Literal["names", "get", "put", "remove"]


class AskedStore:
    """`ShardStore` behind a folder. Files are exchanged in `shelves`, the folder of this run's shards, by namespace."""

    def __init__(self, exchange: Path, shelves: Path) -> None:
        self._exchange, self._shelves = exchange, shelves
        for name in (ASKED, ANSWERED):
            (exchange / name).mkdir(parents=True, exist_ok=True)

    def names(self, namespace: str) -> set[str]:
        return set(self._ask("names", namespace, "")["names"])

    def get(self, namespace: str, name: str, path: Path) -> None:
        self._ask("get", namespace, name, path)

    def put(self, namespace: str, path: Path) -> None:
        self._ask("put", namespace, path.name, path)

    def remove(self, namespace: str, name: str) -> None:
        self._ask("remove", namespace, name)

    def _ask(self, verb: Verb, namespace: str, name: str, path: Path | None = None) -> dict[str, Any]:
        number = uuid.uuid4().hex
        place = None if path is None else path.relative_to(self._shelves).as_posix()
        question = {"verb": verb, "namespace": namespace, "name": name, "place": place}
        asked = self._exchange / ASKED / f"{number}.json"
        partial = asked.with_suffix(".tmp")
        partial.write_text(json.dumps(question))
        partial.replace(asked)
        answer = self._wait_for(self._exchange / ANSWERED / f"{number}.json")
        match answer["outcome"]:
            case "done":
                return answer
            case "not_stored":
                raise NotStored(name)
        raise _unavailable(answer["message"])

    def _wait_for(self, path: Path) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                answer = json.loads(path.read_bytes())
            except FileNotFoundError:
                time.sleep(LOOK_EVERY_SECONDS)
                continue
            path.unlink()
            return answer
        raise _unavailable(f"no answer within {PATIENCE_SECONDS:.0f} s")


def _unavailable(message: str) -> AlignmentError:
    return AlignmentError(
        "store_unavailable", f"the store of shards does not answer: {message}", category="system", retryable=True
    )
