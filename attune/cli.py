"""The `attune` command: `up` and `demo` start the service on this machine, the rest speaks HTTP to any server."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attune import cli_retention
from attune.cli_admin import show_audit, show_quotas
from attune.cli_aliases import aliases, promote
from attune.cli_candidates import candidates
from attune.cli_data import checkpoints, datasets
from attune.cli_evaluations import evaluate, evaluations
from attune.cli_forks import add_forks
from attune.cli_jobs import check, jobs
from attune.cli_keys import keys
from attune.cli_labelings import labelings
from attune.cli_lists import add_to
from attune.cli_prompts import prompts
from attune.cli_sessions import sessions, sign_link
from attune.cli_sweeps import sweeps
from attune.cli_uploads import uploads
from attune.cli_usage import show_job, show_usage
from attune.cli_webhooks import webhooks
from attune.cli_weights import weights
from attune.client import Client
from attune.demo import STOPPING, DemoError, run_demo
from attune.errors import AttuneError
from attune.failing import fail, sentence_of
from attune.local_server import LocalServer, ServerError, demo_assets
from attune.proof import table_of
from attune.speaking import with_client
from attune.version import VERSION

commands = typer.Typer(
    no_args_is_help=True, help="Align text-to-image models with preferences.", pretty_exceptions_enable=False
)
commands.add_typer(jobs, name="job")
commands.add_typer(datasets, name="dataset")
commands.add_typer(checkpoints, name="checkpoint")
commands.add_typer(prompts, name="prompts")
commands.add_typer(aliases, name="alias")
commands.command("promote")(promote)
commands.add_typer(weights, name="weights")
commands.add_typer(uploads, name="uploads")
commands.add_typer(keys, name="keys")
commands.add_typer(webhooks, name="webhooks")
commands.add_typer(sessions, name="sessions")
commands.command("link")(sign_link)
commands.add_typer(cli_retention.retention, name="retention")
cli_retention.add_to(checkpoints)
commands.add_typer(evaluations, name="evaluation")
commands.add_typer(candidates, name="candidates")
commands.add_typer(labelings, name="labeling")
commands.command("evaluate")(evaluate)
commands.command("audit")(show_audit)
commands.command("check")(check)
commands.add_typer(sweeps, name="sweep")
add_forks(jobs, checkpoints)
commands.command("quotas")(show_quotas)
commands.command("usage")(show_usage)
jobs.command("show")(show_job)
add_to(commands, jobs, datasets, checkpoints)

INTERRUPTED = 130  # what a shell gives a command that SIGINT ended
LOOPBACK = ("127.0.0.1", "localhost", "::1")
console = Console()
EXPECTED = (AttuneError, ServerError, DemoError, OSError, ValueError)


def app() -> None:
    """The command; what a user can mend is one message and exit code 1, not a traceback."""
    try:
        commands()
    except EXPECTED as error:
        fail(sentence_of(error))


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
            where = f"(open it in a browser; reference: {server.url}/docs, logs: {server.data_dir}/logs)"
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


# --- the proof -----------------------------------------------------------------------------------------------------


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
