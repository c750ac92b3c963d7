"""What the images of a data set hash to, remembered: a later start on the same files knows its cache without reading them.

By the state of the files (`remembered.state_of`, which preflight's answer rests on too) and the rows that were asked for.
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
from alignment_core.datasets.rows import Annotated

SHA256 = "sha256"
Digests = list[tuple[bytes, ...]]
"""Of each row's images, row by row."""


@dataclass(frozen=True)
class Contents:
    """The digests of one state of a data set's files, in a folder of the cache."""

    folder: Path
    state: str

    def recalled(self, rows: Sequence[Annotated[Any]]) -> Digests | None:
        """Those of the rows' images; None when nobody has read them yet. A damaged file is as good as none."""
        try:
            with safe_open(self._path(rows), framework="pt") as file:
                found = file.get_tensor(SHA256).numpy()
        except (OSError, SafetensorError):
            return None
        return [tuple(image.tobytes() for image in row) for row in found] if len(found) == len(rows) else None

    def keep(self, rows: Sequence[Annotated[Any]], digests: Digests) -> None:
        path = self._path(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = torch.frombuffer(bytearray(b"".join(image for row in digests for image in row)), dtype=torch.uint8)
        write_durably(path, save({SHA256: flat.reshape(len(digests), -1, 32)}))

    def _path(self, rows: Sequence[Annotated[Any]]) -> Path:
        digest = hashlib.sha256(self.state.encode())
        for row in rows:
            digest.update(f"\n{row.number} {row.places}".encode())
        return self.folder / f"{digest.hexdigest()}.safetensors"
