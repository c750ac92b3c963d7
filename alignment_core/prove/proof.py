"""Any models against one of them: `python -m alignment_core evaluate SPEC --workdir DIR`. Start reading here.

    set_stage -> each contender in turn: load, draw, judge, keep -> the table of scores -> the report

Contenders are in memory one after the other, the anchor last, since drift is told between it and each of the others. What was drawn
is kept prompt by prompt, so a run that ends early goes on where it was, on this machine or on another.
"""

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from alignment_core.datasets.prompt_lengths import measure
from alignment_core.errors import AlignmentError, CheckpointError
from alignment_core.evaluation import policy_drift
from alignment_core.evaluation.evaluate import FEW_PROMPTS
from alignment_core.evaluation.policy_drift import distance_between, predictions_at
from alignment_core.evaluation.report import Bootstrap
from alignment_core.evaluation.score_table import Rules, table_of, write_table
from alignment_core.evaluation.scored_prompts import DrawnSoFar, Made, read_shards, scored_prompts, write_shard
from alignment_core.events import (
    ContenderLoaded,
    Event,
    ImagesScored,
    PhaseChanged,
    PhaseProgressed,
    ProofStarted,
    RunCompleted,
    WarningRaised,
)
from alignment_core.load.prompts import read_in
from alignment_core.prove.proof_report import SCORES, Circumstances, publish
from alignment_core.prove.stage import OnStage, Stage, accelerator_for, card_of, plan_of, set_stage
from alignment_core.ranks import ranks_of
from alignment_core.reports import ContenderFacts, Drift, RunWarning
from alignment_core.safetensors_files import write_safetensors
from alignment_core.shapes import Images
from alignment_core.spec import Contest, ProofSpec
from alignment_core.spec.places import RunLabel, Sources, localize
from alignment_core.spec.training import Precision
from alignment_core.versions import versions

DRIFT = "drift"
NO_SOURCES = Sources()


def prove(
    spec: ProofSpec, workdir: Path, *, sources: Sources = NO_SOURCES, cache_dir: Path | None = None
) -> Generator[Event, None, None]:
    """Compare the contenders, yielding what happens; `workdir` receives shards, `scores.parquet`, `report.json`, pages and pictures.

    A work folder that holds shards of the same spec is gone on with: nothing in them is drawn again. Under a launcher of several
    processes every one runs this, and all must leave the loop after the same event. Raises `AlignmentError` when it cannot go on.
    """
    started = time.monotonic()
    spec, cache_dir = spec.resolved(), cache_dir or Path.home() / ".cache" / "attune"
    refuse_other_processes(spec, int(os.environ.get("WORLD_SIZE", "1")))
    here = yield from read_in(localize(spec, sources), "prompts")
    accelerator = accelerator_for(spec, spec.sampling.precision)
    ranks = ranks_of(accelerator.process_index, accelerator.num_processes)
    drawn = ranks.of_first(lambda: read_shards(workdir))  # the processes go by what one of them found
    made = _only_of(spec, drawn)
    known = made.precision if made is not None else None
    yield ProofStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        num_images=len(spec.contenders) * plan_of(here).num_images,
        num_there=sum(len(one.prompts) for one in drawn.values()) * spec.seeds_per_prompt,
        device=accelerator.device.type,
        card=card_of(accelerator),
        precision=precision_told(spec, accelerator.device.type, known),
        versions=versions_of_scores(),
    )
    yield PhaseChanged(phase="loading")
    stage = yield from set_stage(spec, here, cache_dir, accelerator, known, remembers_scores=True)
    run = ProofRun(stage, workdir, drawn, sources.label)
    yield from run.draw_all()
    yield PhaseChanged(phase="evaluating")
    if stage.ranks.is_first:
        yield from run.report(started)
    yield RunCompleted(step=stage.num_images)


def refuse_other_processes(spec: Contest, num: int) -> None:
    """Raise `AlignmentError` where the spec asks for another number of processes than run; one that asks for one takes what there is."""
    if spec.resources.processes not in (1, num):
        raise AlignmentError(
            "processes_differ",
            f"resources.processes is {spec.resources.processes}, and {num} of them run",
            hint=f"Start it with `torchrun --nproc-per-node {spec.resources.processes} -m alignment_core evaluate ...`.",
        )


def versions_of_scores() -> dict[str, str]:
    """The libraries that decide an evaluation's numbers."""
    return {**versions(), "scipy": version("scipy"), "pyarrow": version("pyarrow")}


def _only_of(spec: ProofSpec, drawn: dict[str, DrawnSoFar]) -> Made | None:
    """What the first shard was made with; raises `CheckpointError` where one is of another spec."""
    made = [one for found in drawn.values() for one in found.made]
    if any(one.spec_sha256 != spec.sha256() for one in made):
        raise CheckpointError(
            "workdir_in_use",
            "the work folder holds images of another evaluation",
            hint="Choose an empty work folder, or the spec that this one was made with.",
        )
    return made[0] if made else None


def precision_told(spec: Contest, device: str, known: Precision | None) -> str:
    """What the first event says of it."""
    if spec.sampling.precision != "auto":
        return spec.sampling.precision
    return "fp32" if device == "cpu" else known or "auto"


@dataclass
class ProofRun:
    """An evaluation under way: what has been drawn, and what is said of it at the end."""

    stage: Stage
    workdir: Path
    drawn: dict[str, DrawnSoFar]
    label: RunLabel
    warnings: list[RunWarning] = field(default_factory=list)
    drifts: dict[str, Drift] = field(default_factory=dict)

    def draw_all(self) -> Generator[Event, None, None]:
        """Every contender in turn, the anchor last."""
        spec = self.stage.spec
        for name in [one.name for one in spec.contenders if one.name != spec.anchor_name]:
            if self._left(name) or not self._drift_file(name).is_file():
                yield from self._on_stage(name)
        yield from self._on_stage(spec.anchor_name)

    def _on_stage(self, name: str) -> Generator[Event, None, None]:
        yield PhaseChanged(phase="loading")
        with self.stage.contender(name) as contender:
            yield ContenderLoaded(contender=contender.facts.model_dump(mode="json"))
            self._refuse_changed(contender.facts)
            yield from self._warn_of_lengths(contender)
            yield PhaseChanged(phase="sampling")
            yield from self._draw(contender)
            yield self.stage.divided()
            self.stage.ranks.in_first(lambda: self._measure_drift(contender))

    def _left(self, name: str) -> list[int]:
        """Positions of the prompts that the contender has yet to draw."""
        there = self.drawn[name].prompts if name in self.drawn else {}
        return [position for position in range(len(self.stage.plan.prompts)) if position not in there]

    def _draw(self, contender: OnStage) -> Generator[Event, None, None]:
        stage, name = self.stage, contender.facts.name
        spec, found = stage.spec, self.drawn.setdefault(name, DrawnSoFar())
        left, at_once = self._left(name), max(1, stage.fitting.size // spec.seeds_per_prompt)
        units = [left[start : start + at_once] for start in range(0, len(left), at_once)]

        def work(unit: Sequence[int]) -> list:
            return scored_prompts(unit, stage.drawn(contender, unit), spec.seeds_per_prompt, stage.plan.shown)

        for own in stage.ranks.rounds(units):
            prompts = [one for part in stage.ranks.each(own, work) for one in part]
            made = self._made(contender.facts)
            found.add(made, prompts)
            path = stage.ranks.in_first(lambda: write_shard(self.workdir, made, prompts))  # noqa: B023  called at once
            done = sum(len(one.prompts) for one in self.drawn.values()) * spec.seeds_per_prompt
            if path is not None:
                yield ImagesScored(
                    contender=name, path=path.relative_to(self.workdir).as_posix(), done=done, total=stage.num_images
                )
            yield PhaseProgressed(phase="sampling", done=done, total=stage.num_images)

    def _made(self, facts: ContenderFacts) -> Made:
        stage = self.stage
        return Made(stage.spec.sha256(), facts, stage.scored_by, stage.precision, stage.card, versions_of_scores())

    def _refuse_changed(self, facts: ContenderFacts) -> None:
        """Raise `CheckpointError` where a file is another than when the contender's first images were drawn."""
        for made in self.drawn[facts.name].made if facts.name in self.drawn else ():
            if made.contender.sha256 != facts.sha256 or made.judges != self.stage.scored_by:
                what = (
                    f"the files of {facts.name}" if made.contender.sha256 != facts.sha256 else "the files of a reward"
                )
                raise CheckpointError("inputs_changed", f"{what} have changed since its first images were drawn")

    def _warn_of_lengths(self, contender: OnStage) -> Generator[Event, None, None]:
        """Of the anchor alone: whose reading of prompts stands for all."""
        if contender.facts.name != self.stage.spec.anchor_name:
            return
        prompts = self.stage.plan.prompts
        lengths = measure(prompts, contender.family.tokenize, contender.family.max_tokens)
        if lengths.cut:
            yield self._warned(lengths.warning("prompts", len(lengths.cut), len(prompts)))
        if len(prompts) < FEW_PROMPTS:
            message = (
                f"{len(prompts)} prompts are few: intervals over fewer than {FEW_PROMPTS} cover less than they say"
            )
            yield self._warned(WarningRaised(code="few_prompts", message=message))
        spaces = {one.made[0].contender.name: one.made[0].contender for one in self.drawn.values() if one.made}
        others = [name for name, one in spaces.items() if one.space_sha256 != contender.facts.space_sha256]
        if others:
            message = (
                f"{', '.join(others)} and the anchor {contender.facts.name} have other latents, noise levels or predictions: a seed is "
                "not the same beginning for both, pairs share the prompt alone, and drift is not told"
            )
            yield self._warned(WarningRaised(code="other_latents", message=message))

    def _warned(self, warning: WarningRaised) -> WarningRaised:
        self.warnings.append(RunWarning(code=warning.code, message=warning.message))
        return warning

    # --- drift -----------------------------------------------------------------------------------------------------

    def _drift_file(self, name: str) -> Path:
        return self.workdir / DRIFT / f"{name}.safetensors"

    def _measure_drift(self, contender: OnStage) -> None:
        """Keep what a contender predicts at its own images, noised; from the anchor, how far off it is there."""
        if contender.facts.name != self.stage.spec.anchor_name:
            self._keep_predictions(contender)
            return
        for name, found in self.drawn.items():
            facts = found.made[0].contender
            if name != contender.facts.name and facts.space_sha256 == contender.facts.space_sha256:
                self.drifts[name] = self._drift_of(name, contender)

    @torch.no_grad()
    def _keep_predictions(self, contender: OnStage) -> None:
        stage = self.stage
        images, prompts = self._shown_images(contender.facts.name)
        latents, _ = contender.family.encode_images(2 * images - 1)
        predicted = predictions_at(
            contender.conditioned(prompts, stage.accelerator),
            latents,
            contender.family.path,
            seed=stage.spec.seed,
            batch_size=stage.fitting.size,
        )
        path = self._drift_file(contender.facts.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        write_safetensors(partial, {"latents": latents.float().cpu(), "predicted": predicted.float()}, {})
        partial.replace(path)

    def _drift_of(self, name: str, anchor: OnStage) -> Drift:
        stage, kept = self.stage, load_file(self._drift_file(name))
        latents = kept["latents"].to(stage.accelerator.device)
        _, prompts = self._shown_images(name)
        own = predictions_at(
            anchor.conditioned(prompts, stage.accelerator),
            latents,
            anchor.family.path,
            seed=stage.spec.seed,
            batch_size=stage.fitting.size,
        )
        return distance_between(kept["predicted"], own, latents, anchor.family.path, seed=stage.spec.seed)

    def _shown_images(self, name: str) -> tuple[Images, list[str]]:
        """As many images of the pictures as drift is measured at, in [0, 1], and the prompt of each."""
        plan, found = self.stage.plan, self.drawn[name]
        pixels = np.concatenate([found.pictures(position) for position in plan.shown])[: policy_drift.DRAWS_PER_BIN]
        prompts = [plan.prompts[position] for position in plan.shown for _ in range(plan.seeds_per_prompt)]
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, prompts[: policy_drift.DRAWS_PER_BIN]

    # --- the end ---------------------------------------------------------------------------------------------------

    def report(self, started: float) -> Generator[Event, None, None]:
        """Write the table of scores and everything that follows from it."""
        spec, plan = self.stage.spec, self.stage.plan
        assert isinstance(spec, ProofSpec), "an evaluation under way is one of a ProofSpec"
        ordered = {one.name: self.drawn[one.name] for one in spec.contenders}
        rules = Rules(spec.sha256(), spec.anchor_name, bootstrap_of(spec))
        table = table_of(rules, plan.prompts, plan.seeds, ordered, plan.shown)
        write_table(table, ordered, self.workdir / SCORES)
        circumstances = Circumstances(
            spec=spec,
            drawn=ordered,
            drifts=self.drifts,
            warnings=self.warnings,
            device=self.stage.accelerator.device.type,
            label=self.label,
            elapsed_seconds=time.monotonic() - started,
            written_at=datetime.now(UTC),
        )
        yield from publish(table, circumstances, plan.shown, self.workdir)


def bootstrap_of(spec: ProofSpec) -> Bootstrap:
    """How the intervals of an evaluation are made."""
    return Bootstrap(spec.bootstrap_resamples, spec.confidence, spec.seed, "bca")
