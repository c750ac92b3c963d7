"""Commands for the second run: a fork of a checkpoint, and where a job comes from."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from attune.client import Client
from attune.resources.jobs import Job, Parent
from attune.speaking import with_client
from attune.specs import read_spec
from attune.tables import id_column, listing

console = Console()

Reference = Literal["base", "checkpoint"]


def add_forks(jobs: typer.Typer, checkpoints: typer.Typer) -> None:
    """Put the commands of this file into their groups."""
    checkpoints.command("fork")(fork_checkpoint)
    jobs.command("ancestry")(show_ancestry)


@with_client
def fork_checkpoint(
    client: Client,
    identifier: Annotated[str, typer.Argument(help="Id of a checkpoint, or of a job for its result.")],
    steps: Annotated[int | None, typer.Option(help="Go on with the same spec, up to so many steps in all.")] = None,
    reference: Annotated[
        Reference | None,
        typer.Option(help="Begin a new run on the weights, held to the bare base model or to the checkpoint."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="The spec of the new run; that of the checkpoint's job when left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
) -> None:
    """Queue a job from a checkpoint: --steps goes on with it, --reference begins anew on its weights."""
    checkpoint_id = client.result_checkpoint(identifier) if identifier.startswith("job_") else identifier
    console.print(_forked(client, checkpoint_id, steps, reference, spec, name).id, highlight=False)


def _forked(
    client: Client,
    checkpoint_id: str,
    steps: int | None,
    reference: Reference | None,
    spec: Path | None,
    name: str | None,
) -> Job:
    match steps, reference:
        case int(), None if spec is None:
            return client.fork_resume(checkpoint_id, steps, name=name)
        case None, "base" | "checkpoint":
            written = None if spec is None else read_spec(spec)
            return client.fork_warm_start(checkpoint_id, reference, spec=written, name=name)
        case _:
            raise ValueError(
                "write --steps N to go on, or --reference base|checkpoint, with or without --spec, to begin anew"
            )


@with_client
def show_ancestry(client: Client, job_id: str) -> None:
    """Show what a job was forked from, and what was forked from it."""
    found, job = client.ancestry(job_id), client.get_job(job_id)
    table = listing(id_column("job"), "is", "how", "name")
    for one in reversed(found.ancestors):
        table.add_row(one.job_id, "ancestor", "", "")
    own = found.ancestors[0] if found.ancestors else None
    table.add_row(job_id, f"this job, {job.status}", _how(own), job.name or "")
    for child in found.children:
        table.add_row(child.job_id, f"child, {child.status}", _how(child.parent), child.name or "")
    console.print(table, highlight=False)


def _how(parent: Parent | None) -> str:
    if parent is None:
        return ""
    held = "" if parent.reference is None else f", reference: {parent.reference}"
    return f"{parent.mode} at step {parent.step}{held}"
