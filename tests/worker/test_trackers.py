"""TensorBoard files of a job: stored with its checkpoints, and one log however many attempts wrote it."""

import pytest

from service.store import leases, outputs
from service.store.projects import DEFAULT_PROJECT_ID
from tests.worker.conftest import World
from worker.parts import WorkerParts
from worker.run import run_job


def tracking(world: World) -> WorkerParts:
    world.settings = world.settings.model_copy(update={"trackers": ("tensorboard", "mlflow")})
    return world.worker()


def test_files_of_all_attempts_are_in_order_and_hold_what_they_held(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    job, parts = world.queue(steps=8, every=4), tracking(world)
    lost = leases.claim(world.store, job.id, "lost", 60)
    assert lost is not None
    leases.give_back(world.store, job.id, lost.attempt)
    run_job(parts, job.id)
    files = outputs.list_tracking_files(world.store, DEFAULT_PROJECT_ID, job.id)
    assert [file.path for file in files] == [f"events.out.tfevents.0000000002.000000000{number}" for number in (0, 1)]
    contents = [b"".join(parts.objects.open_range(file.object_key)) for file in files]
    assert contents == [f"up to {step}, told by ['MLFLOW_TRACKING_URI']".encode() for step in (4, 8)]


def test_what_nobody_switched_on_leaves_nothing(world: World) -> None:
    job = world.queue(steps=4)
    run_job(world.worker(), job.id)
    assert outputs.list_tracking_files(world.store, DEFAULT_PROJECT_ID, job.id) == ()
