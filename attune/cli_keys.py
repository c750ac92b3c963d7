"""Commands for the keys of a project, for its admins."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.admin import Scope
from attune.client import Client
from attune.resources.access import NewKey
from attune.speaking import with_client
from attune.tables import age_of, id_column, listing

keys = typer.Typer(no_args_is_help=True, help="Make, rotate and revoke API keys. Asks for a key with the scope admin.")
console = Console()
ONCE = "this is the only time that the key is shown"


@keys.command("create")
@with_client
def create_key(
    client: Client,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        Scope | None,
        typer.Option(help="read looks; submit, where left out, also makes and deletes; admin also deals in keys."),
    ] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Refused after so many days.")] = None,
) -> None:
    """Make a key and print it, once."""
    _show_once(client.admin.create_key(name, scope=scope, expires_in_days=expires_in_days))


@keys.command("list")
@with_client
def list_keys(client: Client) -> None:
    """Show the project's keys, revoked and expired ones too."""
    table = listing(id_column("key"), "scope", "status", "used", Column("name"))
    for one in client.admin.list_keys():
        used = "never" if one.last_used_at is None else age_of(one.last_used_at)
        table.add_row(one.id, one.scope, one.status, used, one.name)
    console.print(table if table.row_count else "no keys")


@keys.command("rotate")
@with_client
def rotate_key(
    client: Client,
    key_id: str,
    grace_hours: Annotated[
        float | None, typer.Option(min=0, help="How long the old key goes on beside the new one; 24 when left out.")
    ] = None,
) -> None:
    """Make a key in the place of another, and print it, once."""
    grace = None if grace_hours is None else round(grace_hours * 3600)
    _show_once(client.admin.rotate_key(key_id, grace_seconds=grace))


@keys.command("revoke")
@with_client
def revoke_key(client: Client, key_id: str) -> None:
    """Have a key refused from now on."""
    client.admin.revoke_key(key_id)
    console.print("revoked")


def _show_once(made: NewKey) -> None:
    typer.echo(made.key)
    typer.echo(f"{made.id}: {ONCE}", err=True)
