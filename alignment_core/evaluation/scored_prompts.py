"""What contenders drew, prompt by prompt, in files that are complete or absent: a run that is killed draws none of it again.

A shard holds some prompts of one contender: the hash of every image, its scores, how far the images of the prompt are apart, and the
pictures where they are shown. It says itself what drew and judged them, so that nothing else is put beside it.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from alignment_core.evaluation.diversity import pairwise_distance
from alignment_core.evaluation.draw_and_judge import Drawn, JudgedBatch
from alignment_core.evaluation.files import replace_file
from alignment_core.reports import ContenderFacts, ScoredBy
from alignment_core.spec.training import Precision

SHARDS = "shards"
SAID = b"attune"

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int32()),
        pa.field("image_sha256", pa.list_(pa.string())),
        pa.field("scores", pa.list_(pa.list_(pa.float64()))),
        pa.field("distance", pa.float64()),
        pa.field("pictures", pa.list_(pa.binary())),
    ]
)


@dataclass(frozen=True)
class ScoredPrompt:
    """The images of one prompt, by seed; `scores` by judge and seed; `pictures` as PNG where they are shown."""

    position: int
    image_sha256: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    distance: float | None
    pictures: tuple[bytes, ...]


@dataclass(frozen=True)
class Made:
    """What the prompts of a shard were drawn and judged with."""

    spec_sha256: str
    contender: ContenderFacts
    judges: tuple[ScoredBy, ...]
    precision: Precision
    card: str
    versions: Mapping[str, str]


@dataclass
class DrawnSoFar:
    """One contender's prompts by position, and what they were made with: several where another machine went on."""

    prompts: dict[int, ScoredPrompt] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)

    def add(self, made: Made, prompts: Iterable[ScoredPrompt]) -> None:
        self.prompts |= {one.position: one for one in prompts}
        if made not in self.made:
            self.made.append(made)

    def as_drawn(self, shown: Sequence[int]) -> Drawn:
        """As the report takes it: every prompt has been drawn."""
        rows = [self.prompts[position] for position in sorted(self.prompts)]
        names = [judge.name for judge in self.made[0].judges]
        scores = {name: np.array([row.scores[index] for row in rows]) for index, name in enumerate(names)}
        distances = None if rows[0].distance is None else np.array([[row.distance] for row in rows], dtype=np.float64)
        return Drawn(scores, distances, np.stack([self.pictures(position) for position in shown]))

    def pictures(self, position: int) -> UInt8[ndarray, "seeds height width 3"]:
        """The images of a prompt that is shown."""
        return np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in self.prompts[position].pictures])


def image_sha256(pixels: UInt8[ndarray, "height width 3"]) -> str:
    """Of height, width and RGB bytes, row by row: what no file format adds to."""
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{height}x{width}\n".encode() + pixels.tobytes()).hexdigest()


def scored_prompts(
    positions: Sequence[int], batches: Sequence[JudgedBatch], seeds_per_prompt: int, shown: Sequence[int]
) -> list[ScoredPrompt]:
    """The images of whole prompts, as they were drawn batch by batch."""
    pixels = [image for batch in batches for image in batch.pixels]
    scores = {name: [score for batch in batches for score in batch.scores[name]] for name in batches[0].scores}
    found = []
    for number, position in enumerate(positions):
        own = slice(number * seeds_per_prompt, (number + 1) * seeds_per_prompt)
        images = np.stack(pixels[own])
        found.append(
            ScoredPrompt(
                position=position,
                image_sha256=tuple(map(image_sha256, images)),
                scores=tuple(tuple(values[own]) for values in scores.values()),
                distance=pairwise_distance(images) if seeds_per_prompt > 1 else None,
                pictures=tuple(map(png_of, images)) if position in shown else (),
            )
        )
    return found


def png_of(pixels: UInt8[ndarray, "height width 3"]) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


# --- files ---------------------------------------------------------------------------------------------------------


def write_shard(folder: Path, made: Made, prompts: Sequence[ScoredPrompt]) -> Path:
    """Write the prompts to a file of their own in `folder`; returns it."""
    rows = [vars(one) for one in prompts]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({SAID: json.dumps(_said(made)).encode()}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    path = folder / SHARDS / f"{made.contender.name}-{prompts[0].position:05d}.parquet"
    replace_file(path, buffer.getvalue())
    return path


def read_shards(folder: Path) -> dict[str, DrawnSoFar]:
    """Everything that lies in `folder`, by contender; a file that is not whole is removed, and drawn again."""
    found: dict[str, DrawnSoFar] = {}
    for path in sorted((folder / SHARDS).glob("*.parquet")):
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError):
            path.unlink()
            continue
        made = _made(json.loads(table.schema.metadata[SAID]))
        found.setdefault(made.contender.name, DrawnSoFar()).add(made, map(_prompt_of, table.to_pylist()))
    return found


def _prompt_of(row: Mapping[str, Any]) -> ScoredPrompt:
    scores = tuple(tuple(one) for one in row["scores"])
    return ScoredPrompt(row["position"], tuple(row["image_sha256"]), scores, row["distance"], tuple(row["pictures"]))


def _said(made: Made) -> dict[str, Any]:
    facts = made.contender.model_dump(mode="json")
    judges = [judge.model_dump(mode="json") for judge in made.judges]
    return {**vars(made), "contender": facts, "judges": judges, "versions": dict(made.versions)}


def _made(said: dict[str, Any]) -> Made:
    facts = ContenderFacts.model_validate(said["contender"])
    judges = tuple(ScoredBy.model_validate(one) for one in said["judges"])
    return Made(**{**said, "contender": facts, "judges": judges})
