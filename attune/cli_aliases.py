"""Commands for the names of checkpoints: champion, candidate and one's own."""

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.client import Client
from attune.resources.promotions import Promotion
from attune.speaking import with_client
from attune.tables import age_of, id_column, listing

aliases = typer.Typer(no_args_is_help=True, help="See what champion, candidate and other names point at.")
console = Console()


@with_client
def promote(
    client: Client,
    identifier: Annotated[str, typer.Argument(help="A checkpoint, or a job for its result.")],
    alias: Annotated[str, typer.Option(help="The name that moves onto it.")] = "champion",
    evaluation: Annotated[
        str | None, typer.Option(help="The evaluation that shows it, in place of the job's own report.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Although no report shows that it is better; say why.")] = False,
    reason: Annotated[str | None, typer.Option(help="For the history of the name.")] = None,
) -> None:
    """Point a name at a checkpoint of which a report shows that it is better: its job's own, or an evaluation's."""
    checkpoint_id = client.result_checkpoint(identifier) if identifier.startswith("job_") else identifier
    made = client.promote(checkpoint_id, alias, evaluation_id=evaluation, force=force, reason=reason)
    console.print(f"{made.alias} is {made.checkpoint_id}: {_earned(made)}", highlight=False, soft_wrap=True)
    console.print(f'jobs may begin from it: "model": "@{made.alias}"', highlight=False, soft_wrap=True)


def _earned(promotion: Promotion) -> str:
    """How it came by the name, in a few words."""
    proof, forced = promotion.proof, "forced" if promotion.forced else ""
    shown = "" if proof is None else f"{proof.reward} {proof.gain:+.4g} ({proof.low:+.4g} .. {proof.high:+.4g})"
    why = "" if promotion.reason is None else f"({promotion.reason})"
    return " ".join(filter(None, [forced, shown, why])) or "no report yet"


def _name() -> Column:
    return Column("name", min_width=len("candidate"))


def _checkpoint() -> Column:
    column = id_column("ckpt")
    column.header = "checkpoint"
    return column


@aliases.command("list")
@with_client
def list_aliases(client: Client) -> None:
    """Show the names and what they point at."""
    table = listing(_name(), _checkpoint(), "earned by")
    for one in client.aliases():
        table.add_row(one.id, one.checkpoint_id, _earned(one.promotion))
    console.print(table if table.row_count else "no alias", highlight=False)


@aliases.command("history")
@with_client
def history(
    client: Client,
    alias: Annotated[str | None, typer.Argument(help="Only of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20,
) -> None:
    """Show what names pointed at, and how they came by it."""
    table = listing(_name(), Column("when", min_width=10), _checkpoint(), "earned by")
    for one in islice(client.promotions(alias), limit):
        earned = "" if one.checkpoint_id is None else _earned(one)
        table.add_row(one.alias, age_of(one.created_at), one.checkpoint_id or "(taken away)", earned)
    console.print(table if table.row_count else "no promotion", highlight=False)


@aliases.command("delete")
@with_client
def delete_alias(client: Client, alias: str) -> None:
    """Take a name away; its history and the checkpoint stay."""
    client.delete_alias(alias)
    console.print("deleted")
