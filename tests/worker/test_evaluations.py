"""Evaluations in the worker, with the real process that draws: what is stored, and that a lost one's images are not drawn again."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment_core.reports import ProofReport, VerificationReport
from alignment_core.spec import ProofSpec
from service.store import contests, events, jobs, leases, proofs
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from tests.alignment_core.tiny import save_tiny_pipeline
from tests.worker.conftest import World
from worker.parts import WorkerParts
from worker.preparing import prepare_alignment
from worker.run import prepare, run_job
from worker.turns import run_queued_jobs

REAL = (sys.executable, "-P", "-m", "alignment_core")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


def spec_of(model: Path, **changes: Any) -> ProofSpec:
    source = {"type": "local", "path": str(model)}
    spec = {
        "contenders": [{"name": "base", "model": source}, {"name": "same", "model": source}],
        "prompts": ["a red circle", "a blue square"],
        "rewards": ["brightness"],
        "sampling": {"num_inference_steps": 1, "guidance_scale": 1.0, "batch_size": 2},
        "bootstrap_resamples": 100,
        "resources": {"device": "cpu", "num_cpu_threads": 1},
    }
    return ProofSpec.model_validate({**spec, **changes})


def worker_of(world: World, name: str = "first") -> WorkerParts:
    settings = world.settings.model_copy(update={"lease_seconds": 60.0, "heartbeat_seconds": 5.0})
    return replace(world.worker(name), trainer=REAL, settings=settings)


def queued(world: World, spec: ProofSpec) -> JobRecord:
    return contests.create(world.store, project_id=DEFAULT_PROJECT_ID, spec=spec)


def types_of(world: World, row: JobRecord) -> list[str]:
    return [one.type for one in events.list_events(world.store, DEFAULT_PROJECT_ID, row.id)]


@pytest.mark.slow
def test_an_evaluation_and_its_verification_run_to_their_end(world: World, model: Path) -> None:
    row, parts = queued(world, spec_of(model)), worker_of(world)
    run_queued_jobs(parts)
    ended = world.get(row)
    assert ended.state == "succeeded", ended.error
    assert (ended.progress.step, ended.progress.total) == (8, 8)
    proof = proofs.get_proof(world.store, DEFAULT_PROJECT_ID, row.id)
    assert proof is not None
    assert proof.scores is not None
    report = ProofReport.model_validate(proof.report)
    assert report.subject_id == row.id
    assert report.comparisons[0].rewards[0].num_ties == 4
    assert proof.scores.sha256 == report.scores_sha256
    types = types_of(world, row)
    assert (types[0], types.count("phase_divided")) == ("proof_started", 2)
    again = proofs.create_verification(world.store, ended, 1)
    assert again is not None
    run_queued_jobs(parts)
    assert world.get(again).state == "succeeded", world.get(again).error
    found = proofs.get_proof(world.store, DEFAULT_PROJECT_ID, again.id)
    assert found is not None
    assert VerificationReport.model_validate(found.report).outcome == "identical"


@pytest.mark.slow
def test_what_a_lost_worker_drew_is_brought_to_the_next_one(
    world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, first = queued(world, spec_of(model)), worker_of(world)
    recorded = events.record_event

    def lost_after_two(store: Any, job_id: str, attempt: int, event: Any, files: Any = ()) -> Any:
        found = recorded(store, job_id, attempt, event, files)
        if len(proofs.shards_of(store, job_id)) == 2:
            leases.give_back(store, job_id, attempt)  # as the sweep does with one whose lease has ended
        return found

    with monkeypatch.context() as patch:
        patch.setattr(events, "record_event", lost_after_two)
        run_job(first, row.id)
    assert world.get(row).state == "queued"
    run_job(worker_of(world, "second"), row.id)
    assert world.get(row).state == "succeeded", world.get(row).error
    told = [
        one.data for one in events.list_events(world.store, DEFAULT_PROJECT_ID, row.id) if one.type == "images_scored"
    ]
    assert len(told) == len({one["path"] for one in told}) == 4
    started = [
        one.data for one in events.list_events(world.store, DEFAULT_PROJECT_ID, row.id) if one.type == "proof_started"
    ]
    assert [one["num_there"] for one in started] == [0, 4]


@pytest.mark.slow
def test_a_contender_that_cannot_be_loaded_fails_it_with_its_name(world: World, model: Path, tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"no weights")
    source = {"type": "local", "path": str(model)}
    lora = {"type": "local", "path": str(tmp_path / "lora.safetensors")}
    contenders = [{"name": "base", "model": source}, {"name": "odd", "model": source, "lora": lora}]
    row = queued(world, spec_of(model, contenders=contenders))
    run_queued_jobs(worker_of(world))
    ended = world.get(row)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error.code == "lora_invalid"
    assert "lora.safetensors: no safetensors file" in ended.error.message


def test_each_kind_of_row_has_its_own_command(world: World, model: Path, start: Callable[..., Any]) -> None:
    row, parts = queued(world, spec_of(model)), world.worker()
    claim = leases.claim(world.store, row.id, "first", 60)
    assert claim is not None
    assert prepare(parts, claim, parts.settings.resolved_work_dir / "a")[0] == "evaluate"
    job = world.queue()
    other = leases.claim(world.store, job.id, "first", 60)
    assert other is not None
    assert prepare_alignment(parts, other, parts.settings.resolved_work_dir / "b")[0] == "run"
    assert jobs.list_jobs(world.store, DEFAULT_PROJECT_ID).data[0].id == job.id


@pytest.mark.slow
def test_a_paused_evaluation_keeps_what_it_drew_and_draws_the_rest_when_it_is_resumed(
    world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, parts = queued(world, spec_of(model, prompts=[f"circle {n}" for n in range(12)])), worker_of(world)
    parts = replace(parts, settings=parts.settings.model_copy(update={"heartbeat_seconds": 0.05}))
    recorded = events.record_event

    def asked_after_two(store: Any, job_id: str, attempt: int, event: Any, files: Any = ()) -> Any:
        found = recorded(store, job_id, attempt, event, files)
        if event.type == "images_scored" and len(proofs.shards_of(store, job_id)) == 2:
            jobs.request_pause(store, DEFAULT_PROJECT_ID, job_id)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(events, "record_event", asked_after_two)
        run_job(parts, row.id)
    paused = world.get(row)
    assert (paused.state, paused.error) == ("paused", None)
    kept = {one.path for one in proofs.shards_of(world.store, row.id)}
    assert len(kept) >= 2
    jobs.resume(world.store, DEFAULT_PROJECT_ID, row.id)
    run_job(parts, row.id)
    assert world.get(row).state == "succeeded", world.get(row).error
    told = [one for one in events.list_events(world.store, DEFAULT_PROJECT_ID, row.id) if one.type == "images_scored"]
    assert len(told) == len({one.data["path"] for one in told}) == 24, "none of it was drawn twice"
