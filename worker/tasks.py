"""The tasks: what a message may ask of a worker. A message holds an id; the database says what it means."""

from worker.app import app, parts
from worker.dataset import prepare_dataset as check_dataset
from worker.run import run_job as run_claimed_job
from worker.sweep import sweep as sweep_once


@app.task(name="attune.run_job")
def run_job(job_id: str) -> None:
    run_claimed_job(parts(), job_id)


@app.task(name="attune.prepare_dataset")
def prepare_dataset(dataset_id: str) -> None:
    check_dataset(parts(), dataset_id)


@app.task(name="attune.sweep")
def sweep() -> None:
    sweep_once(parts())
