"""What the images of a data set hash to, remembered: a later start on the same files knows its cache without reading them.

By the state of the files (`remembered.state_of`, which preflight's answer rests on too) and the rows that were asked for; among the
`notes` too, where the state is the same on every machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.rows import Annotated

SHA256 = "sha256"
Digests = list[tuple[bytes, ...]]
"""Of each row's images, row by row."""


@dataclass(frozen=True)
class Contents:
    """The digests of one state of a data set's files, in a folder of the cache."""

    folder: Path
    state: str
    notes: Notes | None = None

    def recalled(self, rows: Sequence[Annotated[Any]]) -> Digests | None:
        """Those of the rows' images; None when nobody has read them yet. A damaged file is as good as none."""
        path = self._path(rows)
        if not path.exists() and self.notes is not None and (shared := self.notes.recall(path.stem)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, shared)
        try:
            with safe_open(path, framework="pt") as file:
                found = file.get_tensor(SHA256).numpy()
        except (OSError, SafetensorError):
            return None
        return [tuple(image.tobytes() for image in row) for row in found] if len(found) == len(rows) else None

    def keep(self, rows: Sequence[Annotated[Any]], digests: Digests) -> None:
        path = self._path(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = torch.frombuffer(bytearray(b"".join(image for row in digests for image in row)), dtype=torch.uint8)
        content = save({SHA256: flat.reshape(len(digests), -1, 32)})
        write_durably(path, content)
        if self.notes is not None:
            self.notes.keep(path.stem, content)

    def _path(self, rows: Sequence[Annotated[Any]]) -> Path:
        digest = hashlib.sha256(self.state.encode())
        for row in rows:
            digest.update(f"\n{row.number} {row.places}".encode())
        return self.folder / f"{digest.hexdigest()}.safetensors"
