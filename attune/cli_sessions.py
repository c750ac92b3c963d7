"""Commands for what stands in for a key: sessions of browsers, and links to single files."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.client import Client
from attune.speaking import with_client
from attune.tables import age_of, id_column, listing

sessions = typer.Typer(no_args_is_help=True, help="See which browsers are signed in, and sign them out.")
console = Console()


@sessions.command("list")
@with_client
def list_sessions(client: Client) -> None:
    """Show who is signed in: with any key for an admin, for others with their own."""
    table = listing(id_column("session"), "used", Column("from", no_wrap=True), Column("key", overflow="fold"))
    for one in client.admin.sessions():
        table.add_row(one.id, age_of(one.last_used_at), one.remote or "", one.key_id)
    console.print(table if table.row_count else "nobody is signed in")


@sessions.command("end")
@with_client
def end_session(client: Client, session_id: str) -> None:
    """Sign a browser out."""
    client.admin.end_session(session_id)
    console.print("ended")


@with_client
def sign_link(
    client: Client,
    path: Annotated[str, typer.Argument(help="Of a file or a stream, such as /v1/jobs/JOB/report.html.")],
    minutes: Annotated[float, typer.Option(min=0.02, max=60, help="How long it is good for.")] = 5,
) -> None:
    """Print an address that opens one file or stream without a key for some minutes."""
    typer.echo(client.sign_link(path, expires_in_seconds=max(1, round(minutes * 60))).url)
