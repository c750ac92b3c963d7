"""The `attune` command: `up` and `demo` start the service on this machine, the rest speaks HTTP to any server."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from attune.cli_lists import add_to
from attune.client import Client, WeightsFormat
from attune.demo import STOPPING, DemoError, run_demo
from attune.ending import ending_of
from attune.errors import AttuneError
from attune.local_server import LocalServer, ServerError, demo_assets
from attune.preparation import prepare_dataset, read_columns
from attune.proof import table_of
from attune.refusals import create_job, unusable
from attune.resources import Job
from attune.speaking import with_client
from attune.specs import JobFile, read_job
from attune.version import VERSION
from attune.watch import follow

commands = typer.Typer(
    no_args_is_help=True, help="Align text-to-image models with preferences.", pretty_exceptions_enable=False
)
jobs = typer.Typer(no_args_is_help=True, help="Submit jobs, look at them, watch them, stop them.")
datasets = typer.Typer(no_args_is_help=True, help="Upload preference data, and look at it.")
checkpoints = typer.Typer(no_args_is_help=True, help="List and download what a job trained.")
commands.add_typer(jobs, name="job")
commands.add_typer(datasets, name="dataset")
commands.add_typer(checkpoints, name="checkpoint")
add_to(commands, jobs, datasets, checkpoints)

Columns = Annotated[
    str | None,
    typer.Option(help="Which column is what, where names do not say so: ROLE=COLUMN,... or JSON; see docs/data.md."),
]
INTERRUPTED = 130  # what a shell gives a command that SIGINT ended
LOOPBACK = ("127.0.0.1", "localhost", "::1")
console = Console()
EXPECTED = (AttuneError, ServerError, DemoError, OSError, ValueError)


def app() -> None:
    """The command; what a user can mend is one message and exit code 1, not a traceback."""
    try:
        commands()
    except EXPECTED as error:
        _fail(_sentence_of(error))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"attune {VERSION}")
        raise typer.Exit


@commands.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Align text-to-image models with preferences."""


# --- a server on this machine --------------------------------------------------------------------------------------


@commands.command()
def up(
    data_dir: Annotated[
        Path, typer.Option(envvar="ATTUNE_DATA_DIR", help="Folder of the database, the objects and the logs.")
    ] = Path(".attune"),
    host: Annotated[str, typer.Option(envvar="ATTUNE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="ATTUNE_PORT", min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8000,
    catalog: Annotated[
        Path | None, typer.Option(help="Models and rewards to offer by name; the demo's when left out.")
    ] = None,
    allow_local_paths: Annotated[bool, typer.Option(help="Let specs name folders and files of this machine.")] = False,
) -> None:
    """Start the API and workers, and stay until Ctrl-C."""
    environment = dict(os.environ)
    if catalog is not None:
        if not catalog.is_file():
            raise ValueError(f"--catalog {catalog}: no such file")
        environment["ATTUNE_CATALOG_PATH"] = str(catalog.resolve())
    elif (assets := demo_assets()) is not None:
        environment.setdefault("ATTUNE_CATALOG_PATH", str(assets / "catalog.json"))
    if allow_local_paths:
        environment["ATTUNE_ALLOW_LOCAL_PATHS"] = "true"
    _stop_on_signals()
    try:
        with LocalServer(data_dir=data_dir, host=host, port=port, environment=environment) as server:
            where = f"(reference: {server.url}/docs, logs: {server.data_dir}/logs)"
            console.print(f"Attune is up at {server.url}  {where}", soft_wrap=True)
            if host not in LOOPBACK and environment.get("ATTUNE_API_KEYS_REQUIRED", "").lower() not in ("1", "true"):
                console.print(
                    f"warning: {host} is open to others, and no API key is asked for (ATTUNE_API_KEYS_REQUIRED)"
                )
            _serve(server)
    except KeyboardInterrupt:
        pass  # before it was up
    console.print("stopped")


@commands.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = Path("build/demo"),
) -> None:
    """Align the demo model through the whole service, and show the proof."""
    _stop_on_signals()
    try:
        run_demo(folder.absolute(), console)
    except KeyboardInterrupt:
        console.print("stopped")
        raise typer.Exit(INTERRUPTED) from None


def _stop_on_signals() -> None:
    """End as Ctrl-C does; also where a script's `&` has had SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _serve(server: LocalServer) -> None:
    try:
        while True:
            server.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print(STOPPING)


# --- jobs ----------------------------------------------------------------------------------------------------------


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
    job = create_job(client, written)
    console.print(job.id, highlight=False)
    if watch:
        _end_with(client, follow(client, job.id, console))


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
def pause_job(client: Client, job_id: str) -> None:
    """Have a job save and leave the machine to others."""
    console.print(client.pause(job_id).status)


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


@jobs.command("logs")
@with_client
def job_logs(client: Client, job_id: str) -> None:
    """Show the end of what a job's processes printed."""
    console.print(client.logs(job_id), highlight=False, markup=False, soft_wrap=True)


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


# --- data in, results out ------------------------------------------------------------------------------------------


@datasets.command("upload")
@with_client
def upload_dataset(
    client: Client,
    path: Annotated[Path, typer.Argument(help="A parquet file, a zip, or a folder, which is zipped on its way.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    columns: Columns = None,
    drop_bad_rows: Annotated[
        bool, typer.Option("--drop-bad-rows", help="Leave out rows with an error; the report counts and names them.")
    ] = False,
) -> None:
    """Upload preference data, wait for its check and print its id."""
    dataset = client.upload_dataset(
        path,
        name=name,
        columns=read_columns(columns) if columns else None,
        on_bad_row="drop" if drop_bad_rows else "fail",
    )
    try:
        client.wait_for_dataset(dataset.id)
    except AttuneError as error:
        if client.get_dataset(dataset.id).status != "failed":
            raise
        raise ValueError(unusable(client, dataset, error)) from error
    console.print(dataset.id, highlight=False)


@datasets.command("prepare")
def prepare(
    path: Annotated[Path, typer.Argument(help="A file or folder in any form that docs/data.md lists.")],
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    columns: Columns = None,
) -> None:
    """Write preference data of any form as one parquet file with its images, on this machine."""
    found = prepare_dataset(path, out, read_columns(columns) if columns else None)
    left_out = f", {found['num_left_out']} left out, as nothing is said in them" if found["num_left_out"] else ""
    what = "pairs" if found["kind"] == "pairs" else "single images"
    console.print(
        f"{out}: {found['num_rows']} {what} of {path} ({found['format']}){left_out}", highlight=False, soft_wrap=True
    )


@datasets.command("report")
@with_client
def dataset_report(client: Client, dataset_id: str) -> None:
    """Show what the check of a dataset found, as JSON."""
    console.print_json(client.dataset_report(dataset_id).model_dump_json())


@datasets.command("delete")
@with_client
def delete_dataset(client: Client, dataset_id: str) -> None:
    """Remove a dataset for good; refused while a job that has not ended needs it."""
    client.delete_dataset(dataset_id)
    console.print("deleted")


@checkpoints.command("delete")
@with_client
def delete_checkpoint(
    client: Client,
    checkpoint_id: str,
    even_result: Annotated[bool, typer.Option("--even-result", help="Although it is the result of its job.")] = False,
) -> None:
    """Remove a checkpoint of a job that has ended."""
    client.delete_checkpoint(checkpoint_id, even_result=even_result)
    console.print("deleted")


@checkpoints.command("download")
@with_client
def download_checkpoint(
    client: Client,
    identifier: Annotated[
        str,
        typer.Argument(
            help="Id of a checkpoint, or of a job for its result: the best one where that is known, else the latest."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Folder to download into; with --format the file to write.")],
    training_state: Annotated[bool, typer.Option(help="Also what training goes on from.")] = False,
    format: Annotated[
        WeightsFormat | None,
        typer.Option(help="One file instead: kohya for ComfyUI, A1111, InvokeAI and kohya's scripts."),
    ] = None,
) -> None:
    """Download a checkpoint; diffusers loads the folder."""
    checkpoint_id = client.result_checkpoint(identifier) if identifier.startswith("job_") else identifier
    if format is None:
        client.download_checkpoint(checkpoint_id, target, with_training_state=training_state)
    else:
        client.download_weights(checkpoint_id, target, format=format)
    console.print(str(target), highlight=False, soft_wrap=True)


@commands.command()
@with_client
def report(
    client: Client,
    job_id: str,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Save the page with pictures and plots here, and print its path.")
    ] = None,
) -> None:
    """Show the proof: base against aligned model on held-out prompts."""
    if html is not None:
        console.print(str(client.download_report_page(job_id, html)), highlight=False, soft_wrap=True)
        return
    found = client.report(job_id)
    if as_json:
        console.print_json(found.model_dump_json())
    else:
        console.print(table_of(found))


# --- between the commands ------------------------------------------------------------------------------------------


def _show_validation(client: Client, job: JobFile) -> None:
    found = client.validate(job.spec, name=job.name, metadata=job.metadata, resume_from=job.resume_from)
    for warning in found.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if not found.valid:
        raise ValueError(job.told(found.errors))
    console.print("the spec would be taken")


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
        _fail("\n".join(line for line in lines if line))
    if job.status != "succeeded":
        raise typer.Exit(1)


def _sentence_of(error: Exception) -> str:
    """What to show of an error; the operating system's own come as `[Errno 2] ...` otherwise."""
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(1)
