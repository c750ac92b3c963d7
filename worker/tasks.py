"""The tasks: what a message may ask of a worker. The id in it is for people who look into the broker."""

from worker.app import app, parts
from worker.sweep import sweep as sweep_once
from worker.turns import check_uploaded_datasets, make_exports, run_queued_jobs


@app.task(name="attune.run_job")
def run_job(_job_id: str) -> None:
    run_queued_jobs(parts())


@app.task(name="attune.prepare_dataset")
def prepare_dataset(_dataset_id: str) -> None:
    check_uploaded_datasets(parts())
    make_exports(parts())


@app.task(name="attune.sweep")
def sweep() -> None:
    sweep_once(parts())
