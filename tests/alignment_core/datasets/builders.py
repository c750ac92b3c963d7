"""Small real datasets on disk, and small real encoders."""

import io
import json
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

T = TypeVar("T")
Row = dict[str, object]


def pixels(seed: int, width: int = 24, height: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_bytes(seed: int, width: int = 24, height: int = 24, kind: str = "PNG") -> bytes:
    """An encoded image of noise; the same arguments give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, width, height)).save(buffer, kind)
    return buffer.getvalue()


def rows(num: int, num_prompts: int = 1_000_000) -> list[Row]:
    """Canonical rows with pairwise different images."""
    return [
        {
            "prompt": f"prompt {index % num_prompts}",
            "chosen": image_bytes(2 * index),
            "rejected": image_bytes(2 * index + 1),
        }
        for index in range(num)
    ]


def write_parquet(path: Path, values: Sequence[Row], row_group_size: int = 3) -> Path:
    columns = dict.fromkeys(name for row in values for name in row)
    table = pa.table({name: [row.get(name) for row in values] for name in columns})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_jsonl_folder(path: Path, values: Sequence[Row]) -> Path:
    """The same rows as jsonl, each image in a file of its own."""
    (path / "images").mkdir(parents=True)
    lines = []
    for number, row in enumerate(values, 1):
        line = dict(row)
        for column in ("chosen", "rejected"):
            name = f"images/{number}-{column}.png"
            data = row[column]
            assert isinstance(data, bytes)
            (path / name).write_bytes(data)
            line[column] = name
        lines.append(json.dumps(line))
    (path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return path


def zip_folder(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def pick_a_pic_row(index: int, first_won: float, **changes: object) -> Row:
    row: Row = {
        "caption": f"caption {index}",
        "jpg_0": image_bytes(2 * index, kind="JPEG"),
        "jpg_1": image_bytes(2 * index + 1, kind="JPEG"),
        "label_0": first_won,
        "label_1": 1 - first_won,
        "has_label": True,
        "are_different": True,
        "ranking_id": index,
        "model_0": "some model",
    }
    return row | changes


@dataclass
class Encoders:
    """A tiny posterior and a tiny text embedding, which count what they are asked for."""

    images: list[int] = field(default_factory=list)
    prompts: list[list[str]] = field(default_factory=list)

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.float32
        assert images.shape[1] == 3
        assert images.min() >= -1
        assert images.max() <= 1
        self.images.append(len(images))
        mean = F.avg_pool2d(images, 4)
        mixed = mean + mean.mean() * 1e-3  # like real kernels, the bits depend on who else is in the batch
        return mixed, mixed.abs() + 0.1

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        self.prompts.append(prompts)
        codes = torch.tensor([[len(prompt), sum(map(ord, prompt))] for prompt in prompts], dtype=torch.float32)
        return {"prompt_embeds": codes[:, None, :].repeat(1, 5, 1), "pooled": codes}

    @property
    def num_images(self) -> int:
        return sum(self.images)

    @property
    def num_prompts(self) -> int:
        return sum(map(len, self.prompts))


def drain(generator: Generator[object, None, T]) -> tuple[list[object], T]:
    """Everything a generator yields, and what it returns."""
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return seen, stop.value
