"""Questions to the process that has the keys of an object store: they and their answers are files in a folder that both see.

A training process holds no keys, and may run on another machine than the worker that does; all that the two share is a folder
(`worker/shards.py` is the other side). A question is a name and no path: where files lie is agreed.
"""

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment_core.datasets.shard_store import NotStored
from alignment_core.errors import AlignmentError

ASKED, ANSWERED = "asked", "answered"
LOOK_EVERY_SECONDS = 0.02
PATIENCE_SECONDS = 3600.0  # whoever answers has a patience of its own, and this process ends with it


class Asking:
    """Puts questions into `exchange` and waits for the answers. Any thread may ask."""

    def __init__(self, exchange: Path) -> None:
        self._exchange = exchange
        for name in (ASKED, ANSWERED):
            (exchange / name).mkdir(parents=True, exist_ok=True)

    def ask(self, question: Mapping[str, str | int | None]) -> dict[str, Any]:
        """The answer. Raises `NotStored`, and `AlignmentError` with `store_unavailable` when there is none to be had."""
        number = uuid.uuid4().hex
        asked = self._exchange / ASKED / f"{number}.json"
        partial = asked.with_suffix(".tmp")
        partial.write_text(json.dumps(question))
        partial.replace(asked)
        answer = self._wait_for(self._exchange / ANSWERED / f"{number}.json")
        match answer["outcome"]:
            case "done":
                return answer
            case "not_stored":
                raise NotStored(str(question.get("name")))
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
        "store_unavailable", f"the object store does not answer: {message}", category="system", retryable=True
    )
