"""The life of a job on a real store, with real training processes of a stand-in trainer."""

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from alignment_core.spec import JobSpec
from service.store import actions, datasets, events, jobs, leases, metrics, outputs
from service.store.objects import ObjectStore
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from tests.worker.conftest import Background, World
from worker.parts import WorkerParts
from worker.run import run_job

Start = Callable[[WorkerParts, JobRecord], Background]
Behave = Callable[[str], None]

SLOW = '{"step_seconds": 0.05}'


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def step_of(world: World, job: JobRecord) -> int:
    return world.get(job).progress.step


def trainers() -> list[psutil.Process]:
    """Training processes below this one, which may be the parent of test servers too."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "--workdir" in child.cmdline():
                found.append(child)
    return found


def types_of(world: World, job: JobRecord) -> list[str]:
    return [event.type for event in events.list_events(world.store, DEFAULT_PROJECT_ID, job.id, limit=10_000)]


def steps_trained(world: World, job: JobRecord) -> list[int]:
    found = events.list_events(world.store, DEFAULT_PROJECT_ID, job.id, limit=10_000)
    return [event.data["step"] for event in found if event.type == "step_completed"]


def undisturbed_total(job: JobRecord) -> float:
    """The state that the stand-in ends with when nothing happens."""
    spec = JobSpec.model_validate(job.spec)
    return sum(((spec.seed + step) * 2654435761 % 1000) / 1000 for step in range(1, spec.training.steps + 1))


def final_total(world: World, job: JobRecord, objects: ObjectStore) -> float:
    checkpoint = outputs.latest_checkpoint(world.store, job.id)
    assert checkpoint is not None
    assert checkpoint.is_final
    (weights,) = [file for file in checkpoint.files if file.path.endswith(".safetensors")]
    return json.loads(b"".join(objects.open_range(weights.object_key)))


def test_a_job_runs_to_its_end_and_leaves_rows_and_objects(world: World) -> None:
    job, parts = world.queue(), world.worker()
    run_job(parts, job.id)
    ended = world.get(job)
    assert ended.state == "succeeded"
    assert ended.attempt == 1
    assert ended.progress.percent == 100
    assert steps_trained(world, job) == list(range(1, 11))
    found = outputs.list_checkpoints(world.store, DEFAULT_PROJECT_ID, job.id)
    assert [checkpoint.step for checkpoint in found] == [4, 8, 10]
    assert ended.latest_checkpoint_id == found[-1].id
    for file in found[-1].files:
        content = b"".join(parts.objects.open_range(file.object_key))
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert len(content) == file.size_bytes
    assert [row.metrics["loss"] for row in metrics.metrics(world.store, DEFAULT_PROJECT_ID, job.id)][:1] == [0.761]
    report = outputs.get_report(world.store, DEFAULT_PROJECT_ID, job.id)
    assert report is not None
    assert report.report["verdict"] == "improved"
    assert report.page is not None
    page = b"".join(parts.objects.open_range(report.page.object_key))
    assert page == b"<!doctype html><title>of the stand-in</title>"
    assert (report.page.size_bytes, report.page.sha256) == (len(page), hashlib.sha256(page).hexdigest())
    (sample,) = outputs.list_samples(world.store, DEFAULT_PROJECT_ID, job.id)
    assert b"".join(parts.objects.open_range(sample.object_key)).startswith(b"\x89PNG")
    (log,) = outputs.list_logs(world.store, DEFAULT_PROJECT_ID, job.id)
    assert log.text == "log: starting at step 0\n"


def test_nothing_of_an_attempt_stays_on_the_worker(world: World) -> None:
    job, parts = world.queue(), world.worker()
    run_job(parts, job.id)
    assert list(parts.settings.resolved_work_dir.rglob("*.json")) == []
    assert trainers() == []


def test_a_duplicate_message_is_harmless(world: World) -> None:
    job = world.queue()
    run_job(world.worker(), job.id)
    run_job(world.worker("second"), job.id)
    assert world.get(job).attempt == 1


class Recording:
    """A directory store that writes down the order of its puts."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.keys: list[str] = []

    def put_file(self, key: str, path: Path) -> None:
        self.keys.append(key)
        self._objects.put_file(key, path)

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)


def test_the_manifest_of_a_checkpoint_is_uploaded_last(world: World) -> None:
    job, parts = world.queue(), world.worker()
    recording = Recording(parts.objects)
    run_job(WorkerParts(**{**vars(parts), "objects": recording}), job.id)
    for step in (4, 8, 10):
        names = [key for key in recording.keys if f"/checkpoints/{step}/" in key]
        assert len(names) == 3
        assert names[-1].endswith("/manifest.json")


def test_cancel_is_noticed_within_two_seconds_and_keeps_the_last_checkpoint(
    world: World, start: Start, behave: Behave
) -> None:
    behave(SLOW)
    job = world.queue(steps=2000, every=5)
    background = start(world.worker(), job)
    wait_until(lambda: world.get(job).latest_checkpoint_id)
    jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, job.id)
    asked = time.monotonic()
    wait_until(lambda: world.get(job).is_terminal)
    assert time.monotonic() - asked < 2
    background.join()
    assert world.get(job).state == "cancelled"
    assert world.get(job).latest_checkpoint_id
    assert trainers() == []


def test_a_process_that_does_not_leave_is_cancelled_by_force(world: World, start: Start, behave: Behave) -> None:
    behave('{"step_seconds": 0.05, "deaf": true}')
    job, parts = world.queue(steps=2000), world.worker()
    hasty = WorkerParts(**{**vars(parts), "settings": parts.settings.model_copy(update={"cancel_grace_seconds": 0.2})})
    background = start(hasty, job)
    wait_until(lambda: step_of(world, job) > 0)
    jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, job.id)
    background.join()
    assert world.get(job).state == "cancelled"
    assert trainers() == []


def test_a_paused_job_resumes_on_another_machine_where_it_stood(world: World, start: Start, behave: Behave) -> None:
    behave(SLOW)
    job = world.queue(steps=30, every=1000)
    background = start(world.worker(), job)
    wait_until(lambda: step_of(world, job) >= 3)
    jobs.request_pause(world.store, DEFAULT_PROJECT_ID, job.id)
    background.join()
    paused = world.get(job)
    assert paused.state == "paused"
    assert paused.latest_checkpoint_id
    stood_at = paused.progress.step
    assert stood_at < 30

    jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    second = world.worker("second")
    run_job(second, job.id)
    assert world.get(job).state == "succeeded"
    assert world.get(job).attempt == 2
    assert steps_trained(world, job) == list(range(1, 31)), "no step was trained twice"
    assert final_total(world, job, second.objects) == pytest.approx(undisturbed_total(job))


def test_a_worker_that_shuts_down_saves_and_gives_the_job_back_at_once(
    world: World, start: Start, behave: Behave
) -> None:
    behave(SLOW)
    job, first = world.queue(steps=30, every=1000), world.worker()
    background = start(first, job)
    wait_until(lambda: step_of(world, job) >= 3)
    first.shutting_down.set()
    background.join()
    assert world.get(job).state == "queued"
    assert world.get(job).latest_checkpoint_id
    assert world.rung == [job.id]
    run_job(world.worker("second"), job.id)
    assert world.get(job).state == "succeeded"
    assert steps_trained(world, job) == list(range(1, 31))


def test_a_worker_that_lost_its_lease_kills_its_process_and_writes_nothing(
    world: World, start: Start, behave: Behave
) -> None:
    behave(SLOW)
    job = world.queue(steps=2000, every=1000)
    lost = start(world.worker("lost"), job)
    wait_until(lambda: step_of(world, job) >= 2)
    with world.store.write() as session:  # as the sweep does when the lease of a worker has ended
        session.connection().exec_driver_sql("UPDATE jobs SET state = 'queued', worker_id = NULL")
    claimed = leases.claim(world.store, job.id, "second", 60)
    assert claimed is not None
    seq = world.get(job).last_seq
    lost.join()
    assert trainers() == []
    assert world.get(job).attempt == 2
    assert world.get(job).state == "starting"
    assert world.get(job).last_seq == seq
    assert world.rung == []


@pytest.mark.parametrize(
    ("event", "code", "category", "message"),
    [
        ("fail", "loss_not_finite", "user", "the loss is NaN"),
        ("crash", "trainer_crashed", "system", "exit code 3"),
        ("kill", "trainer_killed", "system", "memory"),
        ("silence", "trainer_crashed", "system", "exit code 0"),
    ],
)
def test_a_run_that_fails_is_told_why_and_is_not_tried_again(
    world: World, behave: Behave, event: str, code: str, category: str, message: str
) -> None:
    behave(json.dumps({"at_step": 6, "event": event}))
    job = world.queue()
    run_job(world.worker(), job.id)
    ended = world.get(job)
    assert ended.state == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.category) == (code, category)
    assert message in ended.error.message
    assert ended.attempt == 1
    assert world.rung == []
    checkpoint = outputs.latest_checkpoint(world.store, job.id)
    assert checkpoint is not None
    assert checkpoint.step == 4, "the last good checkpoint is kept"


def test_the_last_line_of_a_crash_is_in_the_error_and_the_rest_in_the_log(world: World, behave: Behave) -> None:
    behave('{"at_step": 2, "event": "crash"}')
    job = world.queue()
    run_job(world.worker(), job.id)
    error = world.get(job).error
    assert error is not None
    assert "the stand-in met the unforeseen" in error.message
    (log,) = outputs.list_logs(world.store, DEFAULT_PROJECT_ID, job.id)
    assert log.text.startswith("log: starting at step 0\n")


def test_a_catalog_folder_that_this_worker_does_not_have_is_named(world: World) -> None:
    job, worker = world.queue(), world.worker()
    (world.root / "model").rmdir()
    run_job(worker, job.id)
    error = world.get(job).error
    assert error is not None
    assert (error.code, error.category) == ("path_missing", "system")
    assert error.message.startswith("models.shapes: ")
    assert str(world.root) not in error.message


def uploaded(world: World, parts: WorkerParts, content: bytes) -> str:
    dataset = datasets.create(world.store, project_id=DEFAULT_PROJECT_ID, filename="my pairs.parquet")
    key = f"projects/test/datasets/{dataset.id}/data.parquet"
    parts.objects.put_bytes(key, content)
    digest = hashlib.sha256(content).hexdigest()
    datasets.uploaded(world.store, dataset.id, size_bytes=len(content), sha256=digest, object_key=key)
    return dataset.id


def test_a_dataset_is_downloaded_once(world: World) -> None:
    parts = world.worker()
    dataset_id = uploaded(world, parts, b"PAR1 stored")
    run_job(parts, world.queue(dataset_id=dataset_id).id)
    (cached,) = (parts.settings.resolved_cache_dir / "datasets").iterdir()
    assert cached.read_bytes() == b"PAR1 stored"
    shutil.rmtree(parts.settings.objects_dir / "data" / "projects" / "test")
    job = world.queue(dataset_id=dataset_id)
    run_job(parts, job.id)
    assert world.get(job).state == "succeeded"


def test_the_process_sees_no_path_and_no_secret_of_the_worker(
    world: World, start: Start, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    behave(SLOW)
    monkeypatch.setenv("ATTUNE_S3_SECRET_ACCESS_KEY", "do not tell")
    job = world.queue(steps=2000)
    start(world.worker(), job)
    wait_until(lambda: step_of(world, job) >= 1)
    guard, trainer = trainers()
    assert not [name for one in (guard, trainer) for name in one.environ() if name.startswith("ATTUNE_")]
    spec = (Path(trainer.cwd()) / "spec.json").read_text()
    assert JobSpec.model_validate_json(spec).sha256() == job.spec_sha256  # as its owner wrote it
    sources = json.loads((Path(trainer.cwd()) / "sources.json").read_text())
    assert sources["models"]["shapes"]["path"] == "inputs/models-shapes"
    assert (Path(trainer.cwd()) / "inputs/models-shapes").is_dir()


@pytest.fixture
def locked(world: World) -> Iterator[threading.Event]:
    """While it is set, another connection holds SQLite's write lock."""
    lock, done = threading.Event(), threading.Event()

    def hold() -> None:
        while not done.wait(0.01):
            if lock.is_set():
                with world.store.write() as session:
                    session.connection()  # the transaction begins with its first use
                    while lock.is_set():
                        time.sleep(0.01)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    yield lock
    lock.clear()
    done.set()
    thread.join()


def test_a_database_that_is_away_for_a_moment_costs_no_step(
    world: World, start: Start, behave: Behave, locked: threading.Event
) -> None:
    behave(SLOW)
    job = world.queue(steps=40, every=20)
    background = start(world.worker(), job)
    wait_until(lambda: step_of(world, job) >= 3)
    locked.set()
    time.sleep(1)
    locked.clear()
    background.join()
    assert world.get(job).state == "succeeded"
    assert steps_trained(world, job) == list(range(1, 41))


def test_a_request_reaches_the_run_and_its_answer_the_row(world: World, start: Start, behave: Behave) -> None:
    behave(SLOW)
    job = world.queue(steps=200, every=20)
    asked = actions.ask(world.store, DEFAULT_PROJECT_ID, job.id, "probe")
    assert asked is not None
    running = start(world.worker(), job)
    wait_until(lambda: not actions.waiting(world.store, job.id))
    jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, job.id)
    running.join()
    (found,) = actions.list_actions(world.store, DEFAULT_PROJECT_ID, job.id)
    assert (found.id, found.state) == (asked.id, "done")


def test_a_pause_that_drops_steps_ends_the_run_at_once_and_goes_on_from_the_last_checkpoint(
    world: World, start: Start, behave: Behave
) -> None:
    behave('{"step_seconds": 0.02, "deaf": true}')  # it would not save if it were asked to
    job = world.queue(steps=400, every=10)
    running = start(world.worker(), job)
    wait_until(lambda: world.get(job).latest_checkpoint_id is not None)
    jobs.request_pause(world.store, DEFAULT_PROJECT_ID, job.id, "last_checkpoint")
    running.join()
    paused = world.get(job)
    assert (paused.state, paused.progress.step % 10) == ("paused", 0)
    assert "run_stopped" not in types_of(world, job)
