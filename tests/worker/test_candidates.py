"""Candidates in the worker, with the real process that draws: what is stored, and that nothing is drawn twice."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alignment_core.spec import CandidatesSpec
from service.store import candidates, contests, events, leases
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.candidates import CandidateImageRecord
from service.store.records.jobs import JobRecord
from tests.alignment_core.tiny import save_tiny_pipeline
from tests.worker.conftest import World
from tests.worker.test_evaluations import worker_of
from worker.run import run_job
from worker.turns import run_queued_jobs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


def queued(world: World, model: Path, **changes: Any) -> JobRecord:
    spec = {
        "contenders": [{"name": "base", "model": {"type": "local", "path": str(model)}}],
        "prompts": ["a red circle", "a blue square"],
        "seeds_per_prompt": 2,
        "sampling": {"num_inference_steps": 1, "guidance_scale": 1.0, "batch_size": 1},
        "resources": {"device": "cpu", "num_cpu_threads": 1},
        **changes,
    }
    return contests.create(world.store, project_id=DEFAULT_PROJECT_ID, spec=CandidatesSpec.model_validate(spec))


def images_of(world: World, row: JobRecord) -> tuple[CandidateImageRecord, ...]:
    return candidates.list_images(world.store, DEFAULT_PROJECT_ID, row.id, limit=100).data


def test_a_lost_workers_images_are_not_drawn_again_nor_those_of_other_candidates(
    world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, first = queued(world, model), worker_of(world)
    recorded = events.record_event

    def lost_after_one(store: Any, job_id: str, attempt: int, event: Any, files: Any = ()) -> Any:
        found = recorded(store, job_id, attempt, event, files)
        if event.type == "candidates_drawn":
            leases.give_back(store, job_id, attempt)  # as the sweep does with one whose lease has ended
        return found

    with monkeypatch.context() as patch:
        patch.setattr(events, "record_event", lost_after_one)
        run_job(first, row.id)
    assert world.get(row).state == "queued"
    assert len(images_of(world, row)) == 1
    run_job(worker_of(world, "second"), row.id)
    ended = world.get(row)
    assert ended.state == "succeeded", ended.error
    found = images_of(world, row)
    assert [(one.position, one.number, one.attempt, one.reused) for one in found] == [
        (0, 0, 1, False),
        (0, 1, 2, False),
        (1, 0, 2, False),
        (1, 1, 2, False),
    ]
    assert len({one.pixels_sha256 for one in found}) == 4
    for one in found:
        content = b"".join(first.objects.open_range(one.object_key))
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (one.width, one.height)
    wider = queued(world, model, seeds_per_prompt=3, prompts=["a red circle"])
    run_queued_jobs(worker_of(world, "third"))
    assert world.get(wider).state == "succeeded", world.get(wider).error
    again = {one.number: one for one in images_of(world, wider)}
    assert [again[number].reused for number in range(3)] == [True, True, False]
    assert [again[number].pixels_sha256 for number in (0, 1)] == [one.pixels_sha256 for one in found[:2]]
    assert again[0].object_key != found[0].object_key


def test_what_takes_too_long_fails_and_keeps_what_is_there(world: World, model: Path) -> None:
    row = queued(world, model, max_run_seconds=0.001)
    run_queued_jobs(worker_of(world))
    ended = world.get(row)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error.code == "out_of_time"
    assert len(images_of(world, row)) == 1
