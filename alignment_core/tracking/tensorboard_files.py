"""TensorBoard: event files in a folder, a new one after every checkpoint, so that each is complete and never changes.

The first file of an attempt says from which step it goes on (`purge_step`): TensorBoard then forgets what an earlier attempt said
of later steps, so that no point is there twice.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from alignment_core.tracking.points import Began, Ending, Gains, Picture, Saved, Scalars, Told, markdown

FLUSH_SECONDS = 10  # for who looks into the folder while the run goes on


class TensorBoardFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._there = set(folder.glob("*tfevents*"))  # of an earlier try in the same folder
        self._writer: SummaryWriter | None = None

    def tell(self, told: Sequence[Told]) -> list[Path]:
        return [path for one in told for path in self._tell(one)]

    def end(self, ending: Ending) -> list[Path]:
        return self._completed()

    def _tell(self, told: Told) -> list[Path]:
        match told:
            case Began():
                self._writer = self._open(0 if told.step is None else told.step + 1)
                self._writer.add_text("spec", _block(told.config), told.step or 0)
                self._writer.add_text("tags", _block(dict(told.tags)), told.step or 0)
            case Scalars():
                for name, value in told.values.items():
                    self._written.add_scalar(name, value, told.step)
            case Picture():
                pixels = np.asarray(Image.open(told.path).convert("RGB"))
                self._written.add_image("samples", pixels, told.step, dataformats="HWC")
                self._written.add_text("samples/prompts", "\n".join(f"1. {one}" for one in told.prompts), told.step)
            case Gains():
                self._written.add_text("report", markdown(told), told.step)
                for name, value in told.values.items():
                    self._written.add_scalar(name, value, told.step)
            case Saved():
                return self._completed()
            case _:
                assert_never(told)
        return []

    @property
    def _written(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = self._open(None)
        return self._writer

    def _open(self, purge_step: int | None) -> SummaryWriter:
        return SummaryWriter(str(self._folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)

    def _completed(self) -> list[Path]:
        """Close the file that is being written; the next point opens another."""
        if self._writer is None:
            return []
        self._writer.close()
        self._writer = None
        (written,) = set(self._folder.glob("*tfevents*")) - self._there
        path = written.rename(self._folder / f"events.out.tfevents.{len(self._there):010d}")  # without host and process
        self._there.add(path)
        return [path]


def _block(value: object) -> str:
    """As TensorBoard's markdown shows it: a block of code."""
    return "".join(f"    {line}\n" for line in json.dumps(value, indent=2, sort_keys=True).splitlines())
