"""Some of an evaluation once more: do the same models still draw the same images, and do the judges still say the same of them?"""

import hashlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from alignment_core.errors import DataError
from alignment_core.evaluation.score_table import ScoreTable, image_hashes, made_with, read_table
from alignment_core.evaluation.scored_prompts import ScoredPrompt, scored_prompts
from alignment_core.events import (
    ContenderLoaded,
    Event,
    PhaseChanged,
    PhaseProgressed,
    ProofStarted,
    RunCompleted,
    VerificationCompleted,
)
from alignment_core.load.prompts import read_in
from alignment_core.prove.proof import NO_SOURCES, refuse_other_processes, versions_of_scores
from alignment_core.prove.stage import Stage, accelerator_for, card_of, set_stage
from alignment_core.reports import ScoreDifference, VerificationReport
from alignment_core.seeds import permutation_of
from alignment_core.spec import ProofSpec
from alignment_core.spec.places import Sources, localize

TOLERANCE = 0.05  # standard deviations of a reward's scores: what another card rounds stays well below


def verify(
    spec: ProofSpec,
    scores: Path,
    num_prompts: int,
    *,
    sources: Sources = NO_SOURCES,
    cache_dir: Path | None = None,
) -> Generator[Event, None, None]:
    """Draw and score `num_prompts` of the spec's prompts again, all seeds and contenders, and compare with what `scores` holds.

    Which prompts follows from the file's hash: whoever made it cannot have known them. The precision is that of then. Raises
    `DataError` for scores of another spec.
    """
    started = time.monotonic()
    spec, cache_dir = spec.resolved(), cache_dir or Path.home() / ".cache" / "attune"
    refuse_other_processes(spec, int(os.environ.get("WORLD_SIZE", "1")))
    here = yield from read_in(localize(spec, sources), "prompts")
    table = read_table(scores)
    if table.rules.spec_sha256 != spec.sha256():
        raise DataError("scores_of_another_spec", f"{scores.name} holds the scores of another evaluation")
    with scores.open("rb") as file:
        scores_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    then = made_with(scores)
    accelerator = accelerator_for(spec, then.precision)
    again = Again(table, image_hashes(scores), _chosen(table, scores_sha256, num_prompts))
    yield ProofStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        num_images=again.num_images,
        num_there=0,
        device=accelerator.device.type,
        card=card_of(accelerator),
        precision=then.precision,
        versions=versions_of_scores(),
    )
    yield PhaseChanged(phase="loading")
    stage = yield from set_stage(spec, here, cache_dir, accelerator, then.precision, remembers_scores=False)
    yield from again.draw_all(stage)
    report = VerificationReport(
        spec_sha256=spec.sha256(),
        scores_sha256=scores_sha256,
        outcome=again.outcome,
        tolerance=TOLERANCE,
        num_images=again.num_images,
        num_equal_images=again.num_equal,
        scores=again.differences,
        changed=again.changed,
        prompts=[table.prompts[position] for position in again.positions],
        precision=stage.precision,
        card=stage.card,
        cards_then=list(then.cards),
        versions=versions_of_scores(),
        versions_then=dict(then.versions),
        elapsed_seconds=time.monotonic() - started,
        written_at=datetime.now(UTC),
    )
    yield VerificationCompleted(report=report.model_dump(mode="json"))
    yield RunCompleted(step=again.num_images)


def _chosen(table: ScoreTable, scores_sha256: str, num_prompts: int) -> list[int]:
    order = permutation_of(len(table.prompts), int(scores_sha256[:12], 16), "verification")
    return sorted(order[:num_prompts])


@dataclass
class Again:
    """What was drawn then, and how what is drawn now differs from it."""

    table: ScoreTable
    then: Mapping[tuple[str, int, int], tuple[str, Mapping[str, float]]]
    positions: Sequence[int]
    num_equal: int = 0
    changed: list[str] = field(default_factory=list)
    off: dict[str, list[float]] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        return len(self.positions) * len(self.table.seeds[0]) * len(self.table.drawn)

    def draw_all(self, stage: Stage) -> Generator[Event, None, None]:
        """Every contender in turn; each process draws prompts of its own, and all know what became of all."""
        done, seeds = 0, len(self.table.seeds[0])
        for name in self.table.drawn:
            yield PhaseChanged(phase="loading")
            with stage.contender(name) as contender:
                yield ContenderLoaded(contender=contender.facts.model_dump(mode="json"))
                self._compare_hashes(name, contender.facts.sha256, {one.name: one.sha256 for one in stage.scored_by})
                yield PhaseChanged(phase="sampling")

                def work(position: int) -> ScoredPrompt:
                    batches = stage.drawn(contender, [position])
                    return scored_prompts([position], batches, seeds, ())[0]

                names = [judge.name for judge in stage.scored_by]
                for own in stage.ranks.rounds(self.positions):
                    for prompt in stage.ranks.each(own, work):
                        self._compare(name, names, prompt)
                        done += seeds
                    yield PhaseProgressed(phase="sampling", done=done, total=self.num_images)
                yield stage.divided()

    def _compare_hashes(self, name: str, model: str, judges: Mapping[str, str]) -> None:
        told = self.table.models[name], self.table.judges
        changed = [*([name] if model != told[0] else []), *(one for one in judges if judges[one] != told[1].get(one))]
        self.changed += [one for one in changed if one not in self.changed]

    def _compare(self, contender: str, judges: Sequence[str], prompt: ScoredPrompt) -> None:
        for number, seed in enumerate(self.table.seeds[prompt.position]):
            image, scores = self.then[contender, prompt.position, seed]
            self.num_equal += image == prompt.image_sha256[number]
            for index, judge in enumerate(judges):
                self.off.setdefault(judge, []).append(abs(prompt.scores[index][number] - scores[judge]))

    @property
    def differences(self) -> list[ScoreDifference]:
        return [
            ScoreDifference(name=name, num_equal=sum(one == 0 for one in off), largest=max(off))
            for name, off in self.off.items()
        ]

    @property
    def outcome(self) -> Literal["identical", "close", "different"]:
        if self.changed:
            return "different"
        if self.num_equal == self.num_images and all(one == 0 for off in self.off.values() for one in off):
            return "identical"
        return (
            "close"
            if all(max(off) <= TOLERANCE * self._spread(name) for name, off in self.off.items())
            else "different"
        )

    def _spread(self, judge: str) -> float:
        """Standard deviation of what the judge gave then, of all contenders' images together."""
        return float(np.concatenate([drawn.scores[judge] for drawn in self.table.drawn.values()]).std())
