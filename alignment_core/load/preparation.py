"""How the examples of a run are prepared: the family's encoders, the spec's transform, and where what is encoded lies."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from alignment_core.datasets.preparation import Preparation
from alignment_core.datasets.rows import Annotated, ImageReader
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.events import Event
from alignment_core.families.family import Family
from alignment_core.load.vae_precision import choose_encoding, first_images
from alignment_core.ranks import Ranks
from alignment_core.spec import JobSpec, TransformSpec
from alignment_core.spec.training import Precision


def preparation_of(
    spec: JobSpec,
    transform: TransformSpec,
    family: Family,
    source: ImageReader,
    rows: Sequence[Annotated[Any]],
    *,
    num_images: int,
    dataset_sha256: str,
    vae_precision: Precision | None,
    cache_dir: Path,
    shelves: Shelves | None,
    ranks: Ranks,
    images_disk: Disk | None,
) -> Generator[Event, None, tuple[Preparation, Precision]]:
    """How rows of `num_images` are encoded, and in which precision their images are: without a `vae_precision` it is measured on the first rows.

    What text embeddings depend on is asked for once: all weights are read for it.
    """
    resolution, size = transform.resolution or family.resolution, spec.evaluation.batch_size
    images = yield from choose_encoding(
        family,
        vae_precision,
        lambda: first_images(source, rows, num_images=num_images, resolution=resolution, batch_size=size),
        dataset_sha256=dataset_sha256,
        resolution=resolution,
        cache_dir=cache_dir,
        notes=None if shelves is None else shelves.notes,
        ranks=ranks,
    )
    how = Preparation(
        encode_images=images.encode,
        encode_prompts=family.encode_prompts,
        image_fingerprint=images.fingerprint,
        prompt_fingerprint=family.prompt_fingerprint(),
        resolution=resolution,
        crop=transform.crop,
        horizontal_flip=transform.horizontal_flip,
        cache_dir=cache_dir,
        batch_size=size,
        image_conditioning=lambda frames: family.image_conditioning(frames, resolution),
        shelves=shelves,
        ranks=ranks,
        images_disk=images_disk,
    )
    return how, images.precision
