"""Commands that submit, look at, watch and stop jobs."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alignment_core.events import Action
from attune.checks import checks_table
from attune.client import Client
from attune.costs import cost_table
from attune.ending import ending_of
from attune.errors import AttuneError
from attune.failing import fail
from attune.refusals import create_job
from attune.resources.jobs import Job
from attune.speaking import with_client
from attune.specs import JobFile, read_job
from attune.watch import follow

jobs = typer.Typer(no_args_is_help=True, help="Submit jobs, look at them, watch them, stop them.")
console = Console()

FETCH_EVERY_SECONDS = 10.0


@jobs.command("submit")
@with_client
def submit_job(
    client: Client,
    file: Annotated[Path, typer.Argument(help="A job spec, or the body of `POST /v1/jobs`; YAML or JSON.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Id of an uploaded dataset, in place of the spec's.")] = None,
    resume_from: Annotated[
        str | None, typer.Option(help="Checkpoint to begin from, or job whose latest one to begin from.")
    ] = None,
    watch: Annotated[bool, typer.Option(help="Follow the job to its end.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be wrong or doubtful.")] = False,
    check_only: Annotated[
        bool,
        typer.Option("--check-only", help="Only try one step, a checkpoint, a picture and its rewards; train nothing."),
    ] = False,
) -> None:
    """Queue a job."""
    written = read_job(file)
    if name is not None:
        written = replace(written, name=name)
    if dataset is not None:
        written = written.with_dataset(dataset)
    if resume_from is not None:
        written = replace(written, resume_from=_latest_of(client, resume_from))
    if dry_run:
        _show_validation(client, written)
        return
    job = create_job(client, written, check_only=check_only)
    console.print(job.id, highlight=False)
    if watch:
        _show_cost(job.estimate)
        _end_with(client, follow(client, job.id, console))


@with_client
def check(
    client: Client,
    file: Annotated[Path, typer.Argument(help="A job spec, or the body of `POST /v1/jobs`; YAML or JSON.")],
    dataset: Annotated[str | None, typer.Option(help="Id of an uploaded dataset, in place of the spec's.")] = None,
) -> None:
    """Have a worker try a job: one step, a checkpoint, a picture and its rewards; nothing is trained."""
    written = read_job(file)
    job = create_job(client, written if dataset is None else written.with_dataset(dataset), check_only=True)
    console.print(job.id, highlight=False)
    ended = follow(client, job.id, console)
    if ended.start_checks is not None:
        console.print(checks_table(ended.start_checks))
    _end_with(client, ended)


@jobs.command("get")
@with_client
def get_job(client: Client, job_id: str) -> None:
    """Show one job as JSON."""
    console.print_json(client.get_job(job_id).model_dump_json())


@jobs.command("watch")
@with_client
def watch_job(client: Client, job_id: str) -> None:
    """Follow a job to its end; exit code 1 when it does not succeed."""
    _end_with(client, follow(client, job_id, console))


@jobs.command("cancel")
@with_client
def cancel_job(client: Client, job_id: str) -> None:
    """Stop a job for good; what it saved stays."""
    console.print(client.cancel(job_id).status)


@jobs.command("pause")
@with_client
def pause_job(
    client: Client,
    job_id: str,
    discard: Annotated[
        bool, typer.Option("--discard", help="Leave at once, without the steps since the last checkpoint.")
    ] = False,
) -> None:
    """Have a job save and leave the machine to others."""
    console.print(client.pause(job_id, keep="last_checkpoint" if discard else "last_step").status)


@jobs.command("ask")
@with_client
def ask_job(
    client: Client,
    job_id: str,
    action: Annotated[Action, typer.Argument(help="checkpoint, sample or probe.")],
) -> None:
    """Have a job save a checkpoint, draw a picture or probe the policy after its next step."""
    console.print(client.ask(job_id, action).id, highlight=False)


@jobs.command("resume")
@with_client
def resume_job(client: Client, job_id: str) -> None:
    """Queue a paused job again, or a failed one whose failure may pass; it goes on from its last checkpoint."""
    console.print(client.resume(job_id).status)


@jobs.command("delete")
@with_client
def delete_job(client: Client, job_id: str) -> None:
    """Remove a job that has ended, with its events, checkpoints, pictures and report."""
    client.delete_job(job_id)
    console.print("deleted")


@jobs.command("delete-sample")
@with_client
def delete_sample(client: Client, job_id: str, sample_id: str) -> None:
    """Remove a picture of a job."""
    client.delete_sample(job_id, sample_id)
    console.print("deleted")


@jobs.command("delete-report")
@with_client
def delete_report(client: Client, job_id: str) -> None:
    """Remove the report of a job that has ended, with its page; the job and its checkpoints stay."""
    client.delete_report(job_id)
    console.print("deleted")


@jobs.command("logs")
@with_client
def job_logs(client: Client, job_id: str) -> None:
    """Show the end of what a job's processes printed."""
    console.print(client.logs(job_id), highlight=False, markup=False, soft_wrap=True)


@jobs.command("manifest")
@with_client
def job_manifest(client: Client, job_id: str) -> None:
    """Show as JSON what decided a job's result and what it left, by hash."""
    console.print_json(json.dumps(client.manifest(job_id)))


@jobs.command("tensorboard")
@with_client
def job_tensorboard(
    client: Client,
    job_id: str,
    logdir: Annotated[Path, typer.Option(help="Folder that receives the event files.")] = Path("tensorboard"),
    follow: Annotated[bool, typer.Option("--follow", help="Fetch new files until the job has ended.")] = False,
) -> None:
    """Fetch what a job told TensorBoard, into a folder of its own; then: tensorboard --logdir LOGDIR."""
    has_ended = not follow
    while not has_ended:
        has_ended = client.get_job(job_id).is_terminal
        _fetch_if_there(client, job_id, logdir)
        time.sleep(0 if has_ended else FETCH_EVERY_SECONDS)
    console.print(str(client.download_tensorboard(job_id, logdir / job_id)), highlight=False, soft_wrap=True)


def _fetch_if_there(client: Client, job_id: str, logdir: Path) -> None:
    try:
        client.download_tensorboard(job_id, logdir / job_id)
    except AttuneError as error:
        if error.code != "tensorboard_not_found":
            raise


@jobs.command("samples")
@with_client
def job_samples(
    client: Client,
    job_id: str,
    out: Annotated[Path | None, typer.Option(help="Where to save it; JOB-step-N.png when left out.")] = None,
) -> None:
    """Download a job's newest picture: base against aligned model, same prompts, same seeds."""
    samples = client.samples(job_id)
    if not samples:
        raise ValueError(f"{job_id} has no pictures yet")
    path = client.download_sample(samples[-1], out or Path(f"{job_id}-step-{samples[-1].step}.png"))
    console.print(str(path), highlight=False, soft_wrap=True)


def _show_validation(client: Client, job: JobFile) -> None:
    found = client.validate(
        job.spec,
        name=job.name,
        metadata=job.metadata,
        resume_from=job.resume_from,
        retention=job.retention,
        pins=job.pins,
    )
    for warning in found.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if not found.valid:
        raise ValueError(job.told(found.errors))
    _show_cost(found.estimate)
    console.print("the spec would be taken")


def _show_cost(estimate: dict[str, Any] | None) -> None:
    table = None if estimate is None else cost_table(estimate)
    if table is not None:
        console.print(table)


def _latest_of(client: Client, identifier: str) -> str:
    if not identifier.startswith("job_"):
        return identifier
    checkpoint_id = client.get_job(identifier).latest_checkpoint_id
    if checkpoint_id is None:
        raise ValueError(f"{identifier} has no checkpoint to begin from")
    return checkpoint_id


def _end_with(client: Client, job: Job) -> None:
    for line in ending_of(client, job):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if job.error is not None:
        again = f"it goes on from its last checkpoint with: attune job resume {job.id}" if job.error.retryable else None
        lines = (f"{job.error.message} [{job.error.code}]", job.error.hint, again)
        fail("\n".join(line for line in lines if line))
    if job.status != "succeeded":
        raise typer.Exit(1)
