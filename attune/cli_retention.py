"""Commands that say how long checkpoints stay."""

from typing import Annotated

import typer
from rich.console import Console

from attune.client import Client
from attune.resources.retention import JobPins, RetentionPolicy
from attune.speaking import with_client
from attune.tables import id_column, listing

retention = typer.Typer(no_args_is_help=True, help="Say how long checkpoints of ended jobs stay, and see what goes.")
console = Console()


@retention.command("show")
@with_client
def show_retention(
    client: Client, job_id: Annotated[str | None, typer.Argument(help="A job; the project when left out.")] = None
) -> None:
    """Show the policy, and of a job what the next sweep does with each checkpoint and why."""
    if job_id is None:
        console.print(_words(client.retention.policy()))
        return
    found = client.retention.of_job(job_id)
    console.print(
        f"{_words(found.policy)} ({'its own' if found.is_own else 'of the project'})", highlight=False, soft_wrap=True
    )
    if words := _pinned(found.pins):
        console.print(f"pinned as they are saved: {words}", highlight=False, soft_wrap=True)
    table = listing(id_column("ckpt"), "", "because")
    for one in found.checkpoints:
        table.add_row(one.id, "GOES" if one.goes else "stays", one.reason)
    console.print(table if table.row_count else "no checkpoint")


@retention.command("set")
@with_client
def set_retention(
    client: Client,
    job_id: Annotated[str | None, typer.Argument(help="A job; the project when left out.")] = None,
    keep_last: Annotated[
        int | None, typer.Option(min=0, help="So many of the latest stay beside the result; all when left out.")
    ] = None,
    keep_best: Annotated[bool, typer.Option(help="Whether the one with the best probe stays.")] = True,
    ttl_days: Annotated[
        float | None, typer.Option(help="What is older goes, the result too; never when left out.")
    ] = None,
    unfinished_days: Annotated[
        float | None,
        typer.Option(help="So long after a job failed or was cancelled all that it left goes; never when left out."),
    ] = None,
) -> None:
    """Put the policy of the project, or of one job. Pinned checkpoints and those of forks always stay."""
    client.retention.put(
        job_id, keep_last=keep_last, keep_best=keep_best, ttl_days=ttl_days, unfinished_days=unfinished_days
    )
    console.print("set")


@retention.command("give-up")
@with_client
def give_up_retention(client: Client, job_id: str) -> None:
    """Give up a job's own policy: the project's counts again."""
    console.print(_words(client.retention.give_up(job_id).policy))


@with_client
def pin_checkpoint(client: Client, checkpoint_id: str) -> None:
    """Keep a checkpoint from every policy and from deletion."""
    client.retention.pin(checkpoint_id)
    console.print("pinned")


@with_client
def unpin_checkpoint(client: Client, checkpoint_id: str) -> None:
    """Let policies and deletion count for a checkpoint again."""
    client.retention.unpin(checkpoint_id)
    console.print("unpinned")


def add_to(checkpoints: typer.Typer) -> None:
    checkpoints.command("pin")(pin_checkpoint)
    checkpoints.command("unpin")(unpin_checkpoint)


def _pinned(pins: JobPins) -> str:
    steps = [f"step {one}" for one in pins.steps]
    return ", ".join([*steps, *(["the result"] if pins.result else [])])


def _words(policy: RetentionPolicy) -> str:
    parts = [] if policy.keep_last is None else [f"the last {policy.keep_last} stay beside the result"]
    parts += ["and the best one"] if parts and policy.keep_best else []
    parts += [] if policy.ttl_days is None else [f"what is older than {policy.ttl_days:g} days goes"]
    if policy.unfinished_days is not None:
        parts.append(f"{policy.unfinished_days:g} days after a job failed or was cancelled all of it goes")
    return ", ".join(parts) or "all checkpoints stay"
