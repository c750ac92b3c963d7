"""Commands for files on their way."""

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.client import Client
from attune.speaking import with_client
from attune.tables import bytes_of, id_column, listing

uploads = typer.Typer(
    no_args_is_help=True, help="Files that have not arrived whole; uploading the same file again goes on with one."
)
console = Console()


@uploads.command("list")
@with_client
def list_uploads(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest unfinished uploads, and how much of each has arrived."""
    table = listing(id_column("upl"), "for", Column("arrived", justify="right"), "of", "file")
    for one in islice(client.unfinished_uploads(), limit):
        table.add_row(one.id, one.purpose, bytes_of(one.offset), bytes_of(one.size_bytes), one.filename)
    console.print(table if table.row_count else "no unfinished upload", highlight=False)


@uploads.command("delete")
@with_client
def delete_upload(client: Client, upload_id: str) -> None:
    """Remove what has arrived of a file; otherwise it goes by itself after a day."""
    client.delete_upload(upload_id)
    console.print("deleted")
