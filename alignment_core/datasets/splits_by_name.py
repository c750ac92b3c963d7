"""Splits that a dataset brings along, told by the names of its files: `data/train-00000-of-00004.parquet`, `test/metadata.csv`.

What others held out to judge models by is not trained on: where there is a `train`, the other splits are left, and said to be.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

SPLITS = re.compile(r"^(train|training|test|testing|validation|valid|val|dev|eval)(?:_unique)?(?:[-_.].*)?$")
TRAIN = ("train", "training")


def training_files(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of the training split and those of the others; all and none when the names tell no splits."""
    splits = {name: _split_of(name) for name in names}
    if not any(split in TRAIN for split in splits.values()):
        return list(names), []
    others = [name for name in names if splits[name] is not None and splits[name] not in TRAIN]
    return [name for name in names if name not in others], others


def other_splits_note(others: Sequence[str]) -> str:
    shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return f"only the train split is read, not {shown}"


def _split_of(name: str) -> str | None:
    path = PurePosixPath(name)
    for part in (path.name.lower(), *(part.lower() for part in reversed(path.parts[:-1]))):
        if found := SPLITS.match(part):
            return found[1]
    return None
