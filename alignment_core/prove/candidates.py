"""Images for people to judge: `python -m alignment_core draw SPEC --workdir DIR`.

    set_stage -> each contender in turn: load, take what is known, draw the rest batch by batch -> a PNG an image

An image follows from its fingerprint: the model's files, prompt, seed, settings and versions. What lies under its fingerprint in
`known/` of the work folder is taken and not drawn; what an earlier attempt of this spec drew is said by its `DrawnAlready`.
"""

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alignment_core.datasets.prompt_lengths import measure
from alignment_core.errors import AlignmentError
from alignment_core.evaluation.files import replace_file
from alignment_core.evaluation.scored_prompts import image_sha256, png_of
from alignment_core.events import (
    CandidatesDrawn,
    CandidatesStarted,
    ContenderLoaded,
    DrawnImage,
    Event,
    PhaseChanged,
    PhaseProgressed,
    RunCompleted,
)
from alignment_core.load.prompts import read_in
from alignment_core.prove.proof import NO_SOURCES, precision_told, refuse_other_processes
from alignment_core.prove.stage import OnStage, Stage, accelerator_for, card_of, plan_of, set_stage
from alignment_core.ranks import ranks_of
from alignment_core.reports import ImageRecipe, StartingNoise
from alignment_core.spec import CandidatesSpec, DrawnAlready, sha256_of_json
from alignment_core.spec.places import Sources, localize
from alignment_core.versions import versions

IMAGES, KNOWN = "images", "known"
NOTHING = DrawnAlready()


@dataclass(frozen=True)
class Place:
    """Which image of a contender: by the places of its prompt and of its seed."""

    position: int
    number: int
    prompt: str
    seed: int


def draw_candidates(
    spec: CandidatesSpec,
    workdir: Path,
    *,
    sources: Sources = NO_SOURCES,
    cache_dir: Path | None = None,
    already: DrawnAlready = NOTHING,
) -> Generator[Event, None, None]:
    """Let every contender draw every prompt and seed, yielding what happens; `workdir` receives a PNG for each image.

    Under a launcher of several processes every one runs this, and all must leave the loop after the same event. Raises
    `AlignmentError` when it cannot go on, or when `max_run_seconds` are over.
    """
    started = time.monotonic()
    spec, cache_dir = spec.resolved(), cache_dir or Path.home() / ".cache" / "attune"
    refuse_other_processes(spec, int(os.environ.get("WORLD_SIZE", "1")))
    here = yield from read_in(localize(spec, sources), "prompts")
    accelerator = accelerator_for(spec, spec.sampling.precision)
    ranks = ranks_of(accelerator.process_index, accelerator.num_processes)
    known = ranks.of_first(lambda: {path.stem for path in (workdir / KNOWN).glob("*.png")})
    yield CandidatesStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        num_images=len(spec.contenders) * plan_of(here).num_images,
        num_there=len(already.images),
        device=accelerator.device.type,
        card=card_of(accelerator),
        precision=precision_told(spec, accelerator.device.type, already.precision),
        versions=versions(),
    )
    yield PhaseChanged(phase="loading")
    stage = yield from set_stage(spec, here, cache_dir, accelerator, already.precision, remembers_scores=False)
    yield from Drawing(spec, stage, workdir, started, set(already.images), known).draw_all()
    yield RunCompleted(step=stage.num_images)


@dataclass
class Drawing:
    """Candidates under way. `there` are the images that are kept, `known` the fingerprints of those that need not be drawn."""

    spec: CandidatesSpec
    stage: Stage
    workdir: Path
    started: float
    there: set[tuple[str, int, int]]
    known: set[str]

    def draw_all(self) -> Generator[Event, None, None]:
        """Every contender in turn; one of which nothing is left is not loaded."""
        for name in (one.name for one in self.spec.contenders):
            left = [one for one in self._places() if (name, one.position, one.number) not in self.there]
            if left:
                yield PhaseChanged(phase="loading")
                with self.stage.contender(name) as contender:
                    yield ContenderLoaded(contender=contender.facts.model_dump(mode="json"))
                    yield from self._warn_of_lengths(contender)
                    yield PhaseChanged(phase="sampling")
                    yield from self._draw(contender, left)

    def _places(self) -> list[Place]:
        plan = self.stage.plan
        return [
            Place(position, number, prompt, seed)
            for position, (prompt, seeds) in enumerate(zip(plan.prompts, plan.seeds, strict=True))
            for number, seed in enumerate(seeds)
        ]

    def _draw(self, contender: OnStage, left: Sequence[Place]) -> Generator[Event, None, None]:
        stage, recipe = self.stage, self._recipe(contender)
        found = [one for one in left if fingerprint_of(recipe, one) in self.known]
        if found:
            images = stage.ranks.of_first(lambda: [self._reused(recipe, one) for one in found])
            yield from self._kept(contender, recipe, images)
        missing = [one for one in left if one not in found]
        size = stage.fitting.size
        units = [missing[start : start + size] for start in range(0, len(missing), size)]

        def work(unit: Sequence[Place]) -> list[tuple[Place, bytes, str, int, int]]:
            batches = stage.drawn_of(contender, [(one.prompt, one.seed) for one in unit])
            pixels = [image for batch in batches for image in batch.pixels]
            return [
                (place, png_of(image), image_sha256(image), image.shape[1], image.shape[0])
                for place, image in zip(unit, pixels, strict=True)
            ]

        for own in stage.ranks.rounds(units):
            drawn = [one for part in stage.ranks.each(own, work) for one in part]
            stage.ranks.in_first(lambda: [replace_file(self._file(contender, one[0]), one[1]) for one in drawn])  # noqa: B023
            images = [
                self._image(recipe, place, self._file(contender, place), sha256, width, height)
                for place, _, sha256, width, height in drawn
            ]
            yield from self._kept(contender, recipe, images)
            self._refuse_late()

    def _kept(
        self, contender: OnStage, recipe: ImageRecipe, images: Sequence[DrawnImage]
    ) -> Generator[Event, None, None]:
        name, total = contender.facts.name, self.stage.num_images
        self.there |= {(name, one.position, one.number) for one in images}
        done, told = len(self.there), recipe.model_dump(mode="json")
        yield CandidatesDrawn(contender=name, recipe=told, images=list(images), done=done, total=total)
        yield PhaseProgressed(phase="sampling", done=done, total=total)

    def _reused(self, recipe: ImageRecipe, place: Place) -> DrawnImage:
        path = self.workdir / KNOWN / f"{fingerprint_of(recipe, place)}.png"
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        return self._image(recipe, place, path, image_sha256(pixels), pixels.shape[1], pixels.shape[0]).model_copy(
            update={"reused": True}
        )

    def _image(self, recipe: ImageRecipe, place: Place, path: Path, sha256: str, width: int, height: int) -> DrawnImage:
        return DrawnImage(
            path=path.relative_to(self.workdir).as_posix(),
            position=place.position,
            number=place.number,
            prompt=place.prompt,
            seed=place.seed,
            width=width,
            height=height,
            pixels_sha256=sha256,
            fingerprint=fingerprint_of(recipe, place),
        )

    def _file(self, contender: OnStage, place: Place) -> Path:
        return self.workdir / IMAGES / contender.facts.name / f"{place.position:05d}-{place.number:02d}.png"

    def _recipe(self, contender: OnStage) -> ImageRecipe:
        family, sampling = contender.family, self.spec.sampling
        return ImageRecipe(
            contender=contender.facts,
            noise=StartingNoise(shape=list(family.latent_shape(family.resolution))),
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            precision=self.stage.precision,
            card=self.stage.card,
            versions=versions(),
        )

    def _warn_of_lengths(self, contender: OnStage) -> Generator[Event, None, None]:
        """Of the first one alone: whose reading of prompts stands for all."""
        if contender.facts.name == self.spec.anchor_name:
            prompts = self.stage.plan.prompts
            lengths = measure(prompts, contender.family.tokenize, contender.family.max_tokens)
            if lengths.cut:
                yield lengths.warning("prompts", len(lengths.cut), len(prompts))

    def _refuse_late(self) -> None:
        most = self.spec.max_run_seconds
        if most is not None and self.stage.ranks.of_first(lambda: time.monotonic() - self.started > most):
            message = f"{len(self.there)} of {self.stage.num_images} images were drawn when max_run_seconds ({most:g}) were over"
            raise AlignmentError("out_of_time", message, hint="Draw fewer images, or give it more time.")


def fingerprint_of(recipe: ImageRecipe, place: Place) -> str:
    """Hash of all that an image follows from; of no card, which may round another way."""
    told: dict[str, Any] = {
        "model": recipe.contender.sha256,
        "resolution": recipe.contender.resolution,
        "prompt": place.prompt,
        "seed": place.seed,
        **recipe.model_dump(mode="json", exclude={"contender", "card"}),
    }
    return sha256_of_json(told)
