"""What runs say: that they start, steps, checkpoints, pictures, images, reports and how they end, each recorded by its worker."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from alignment_core.events import (
    ActionAnswered,
    CandidatesDrawn,
    CandidatesStarted,
    CheckpointSaved,
    DrawnImage,
    EvaluationCompleted,
    Event,
    ImagesScored,
    PhaseChanged,
    ProofCompleted,
    ProofStarted,
    RunCompleted,
    RunFailed,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
)
from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import end, go, tell
from benchmarks.simulation.specs import CONTENDERS
from benchmarks.simulation.world import Attempt, World, pick
from service.api.schemas.candidate_examples import RECIPE_EXAMPLE
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import candidates, keys
from service.store.kinds import Kind, kind_of
from service.store.models import Checkpoint
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT

PLACES = [(contender, number) for contender in CONTENDERS for number in (0, 1)]  # of candidates: one prompt, two seeds


def kind(attempt: Attempt) -> Kind:
    found = kind_of(attempt.claim.job.id)
    assert found is not None
    return found


def start(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    time = world.clock.time
    shared: dict[str, Any] = {
        "spec_sha256": "0" * 64,
        "device": "cpu",
        "precision": "fp32",
        "versions": {},
        "time": time,
    }
    said: Event
    match kind(attempt):
        case "job":
            said = RunStarted(
                learning_rate=1e-5, examples_per_step=1, total_steps=9, resumed_from_step=attempt.step, **shared
            )
        case "cand":
            said = CandidatesStarted(num_images=len(PLACES), num_there=0, card="cpu", **shared)
        case _:
            said = ProofStarted(num_images=8, num_there=0, card="cpu", **shared)
    job = tell(world, attempt, said, death)
    if job is not None and job.state == "starting":
        go(world, job, "begin")


def train(world: World, index: int, num: int, *, ends: bool) -> None:
    """Start if need be, some steps and a checkpoint, or images, and with `ends` the report and the end."""
    start(world, index, None)
    for _ in range(num):
        step(world, index, None)
        draw_candidate(world, index, None)
    save(world, index, False, ends, None)
    if ends:
        report(world, index, None)
        complete(world, index, None)
        end(world, index, "succeeded", False, None)


def change_phase(world: World, index: int, skew_seconds: float) -> None:
    """The training process's clock may be off, or be set back by whoever keeps the machine's."""
    time = world.clock.time + timedelta(seconds=skew_seconds)
    tell(world, pick(world.attempts, index), PhaseChanged(phase="training", time=time), None)


def step(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    if kind(attempt) == "cand":
        return
    attempt.step += 1
    loss = attempt.claim.attempt + attempt.step / 1000  # by which attempt a figure is
    event = StepCompleted(
        step=attempt.step, total_steps=9, metrics={"loss": loss}, step_seconds=0.1, time=world.clock.time
    )
    if (job := tell(world, attempt, event, death)) is not None:
        job.metrics[attempt.step] = loss


def save(world: World, index: int, is_best: bool, is_final: bool, death: Death | None) -> None:
    """A checkpoint: its files go up, then its manifest, then its row. A worker may die between any two of them."""
    attempt = pick(world.attempts, index)
    if kind(attempt) == "cand":
        return
    folder = attempt.workdir / "checkpoints" / str(attempt.step)
    content = f"{attempt.claim.job.id} {attempt.claim.attempt} {attempt.step}".encode()
    world.new_file(folder, "weights.safetensors", content)
    file = {"path": "weights.safetensors", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    world.new_file(folder, "manifest.json", json.dumps({"files": [file]}).encode())
    event = CheckpointSaved(
        step=attempt.step,
        path=f"checkpoints/{attempt.step}",
        kind="lora",
        is_final=is_final,
        is_best=is_best,
        result_step=attempt.step if is_final else None,
        size_bytes=len(content),
        time=world.clock.time,
    )
    if (job := tell(world, attempt, event, death)) is not None:
        _keep(world, job, event)


def _keep(world: World, job: told.Job, event: CheckpointSaved) -> None:
    prefix = keys.checkpoint_prefix(PROJECT, job.id, event.step, job.attempt)
    there = [one for one in world.told.of_job(job.id) if one.step == event.step]
    if event.is_best:
        for one in world.told.of_job(job.id):
            one.is_best = False
    checkpoint = told.Checkpoint(
        id=there[0].id if there else _new_id(world, job.id, event.step),
        job_id=job.id,
        step=event.step,
        attempt=job.attempt,
        keys=frozenset({f"{prefix}weights.safetensors", f"{prefix}manifest.json"}),
        time=event.time,
        is_pinned=bool(there) and there[0].is_pinned,
        is_best=event.is_best,
    )
    for one in [one.id for one in world.told.exports.values() if one.checkpoint_id == checkpoint.id]:
        del world.told.exports[one]  # they were made of the files before
    world.told.checkpoints[checkpoint.id] = checkpoint
    job.latest = checkpoint.id
    job.result = checkpoint.id if event.result_step is not None else job.result


def _new_id(world: World, job_id: str, step_: int) -> str:
    query = sa.select(Checkpoint.id).where(Checkpoint.job_id == job_id, Checkpoint.step == step_)
    with world.store.read() as session:
        found = session.scalars(query).one_or_none()
    assert found is not None, "a checkpoint that was acknowledged is not there"
    return found


def draw(world: World, index: int, death: Death | None) -> None:
    """A picture; of an evaluation some images with their scores, and of candidates one of the images."""
    attempt = pick(world.attempts, index)
    if kind(attempt) == "cand":
        return draw_candidate(world, index, death)
    world.num_files += 1
    name = world.new_file(attempt.workdir, "drawn.png", f"picture {world.num_files}".encode())
    if kind(attempt) != "job":
        scored = ImagesScored(contender="base", path=name, done=1, total=8, time=world.clock.time)
        if (job := tell(world, attempt, scored, death)) is not None:
            job.shards[name] = keys.proof_file_key(PROJECT, job.id, name, job.attempt)
    else:
        drawn = SamplesDrawn(step=attempt.step, path=name, prompts=["a"], time=world.clock.time)
        if (job := tell(world, attempt, drawn, death)) is not None:
            job.samples[attempt.step] = keys.sample_key(PROJECT, job.id, attempt.step, job.attempt)


def draw_candidate(world: World, index: int, death: Death | None) -> None:
    """An image of a place that has none yet. What it shows follows from its place, so that an attempt draws again what another drew."""
    attempt = pick(world.attempts, index)
    if kind(attempt) != "cand":
        return
    job_id = attempt.claim.job.id
    there = {(contender, number) for contender, _, number in candidates.drawn_already(world.store, job_id).images}
    if not (places := [one for one in PLACES if one not in there]):
        return
    contender, number = places[0]
    path, content = f"{contender}/00000-{number:02d}.png", f"{job_id} {contender} {number}".encode()
    world.new_file((attempt.workdir / path).parent, f"00000-{number:02d}.png", content)
    sha256 = hashlib.sha256(content).hexdigest()
    image = DrawnImage(
        path=path,
        position=0,
        number=number,
        prompt="a",
        seed=number,
        width=8,
        height=8,
        pixels_sha256=sha256,
        fingerprint=sha256,
    )
    recipe = {**RECIPE_EXAMPLE, "contender": {**RECIPE_EXAMPLE["contender"], "name": contender}}
    event = CandidatesDrawn(
        contender=contender, recipe=recipe, images=[image], done=1, total=len(PLACES), time=world.clock.time
    )
    if (job := tell(world, attempt, event, death)) is not None:
        job.images[contender, number] = keys.candidate_key(PROJECT, job.id, path, job.attempt)


def report(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    if kind(attempt) == "cand":
        return
    name = world.new_file(attempt.workdir, "page.html", b"<p>better</p>")
    if kind(attempt) != "job":
        told_ = ProofCompleted(path="report.json", scores=name, report={"is": "a report"}, time=world.clock.time)
        if (job := tell(world, attempt, told_, death)) is not None:
            job.shards["scores"] = keys.proof_file_key(PROJECT, job.id, name, job.attempt)
    else:
        found = {**REPORT_EXAMPLE, "step": attempt.step}
        event = EvaluationCompleted(
            step=attempt.step, path="report.json", page=name, report=found, time=world.clock.time
        )
        if (job := tell(world, attempt, event, death)) is not None:
            job.pages[attempt.step] = keys.report_page_key(PROJECT, job.id, attempt.step, job.attempt)


def answer(world: World, index: int, death: Death | None) -> None:
    """Of what was asked of any job: an answer to what was asked of another is nobody's."""
    attempt = pick(world.attempts, index)
    asked = [(job, name) for job in world.told.jobs.values() for name in job.actions]
    asker, name = pick(asked, index)
    event = ActionAnswered(id=name, action="probe", step=attempt.step, time=world.clock.time)
    if (job := tell(world, attempt, event, death)) is not None and job is asker:
        job.actions[name] = True


def complete(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    job = tell(world, attempt, RunCompleted(step=attempt.step, time=world.clock.time), death)
    if job is not None and job.state == "running":
        go(world, job, "finalize")


def fail(world: World, index: int, retryable: bool, death: Death | None) -> None:
    event = RunFailed(
        code="crashed", message="it crashed", category="system", retryable=retryable, time=world.clock.time
    )
    if (job := tell(world, pick(world.attempts, index), event, death)) is not None:
        job.failure = "retryable" if retryable else "final"
