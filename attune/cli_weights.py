"""Commands for LoRAs to start from, and for what evaluations compare."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attune.client import Client
from attune.speaking import with_client
from attune.tables import bytes_of, id_column, listing
from attune.upload_bar import upload_bar

weights = typer.Typer(
    no_args_is_help=True, help="Upload LoRAs to start from or to compare, and whole U-Nets or transformers to compare."
)
console = Console()


@weights.command("upload")
@with_client
def upload_weights(
    client: Client,
    path: Annotated[
        Path,
        typer.Argument(
            help="A safetensors file: a LoRA under PEFT's, diffusers' or kohya's names, or a whole denoiser."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
) -> None:
    """Upload weights, wait for their check and print their id."""
    with upload_bar() as progress:
        uploaded = client.upload_weights(path, name=name, progress=progress)
    client.wait_for_weights(uploaded.id)
    console.print(uploaded.id, highlight=False)


@weights.command("list")
@with_client
def list_weights(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest weights."""
    table = listing(id_column("wts"), "status", "format", "rank", "size", "name")
    for _, one in zip(range(limit), client.weights(), strict=False):
        ranks = "" if one.report is None else ", ".join(str(rank) for rank in one.report.ranks)
        form = "" if one.report is None else one.report.format
        table.add_row(one.id, one.status, form, ranks, bytes_of(one.size_bytes), one.name or one.filename)
    console.print(table if table.row_count else "no weights")


@weights.command("get")
@with_client
def get_weights(client: Client, weights_id: str) -> None:
    """Show uploaded weights as JSON."""
    console.print_json(client.get_weights(weights_id).model_dump_json())


@weights.command("delete")
@with_client
def delete_weights(client: Client, weights_id: str) -> None:
    """Remove uploaded weights for good; refused while a job that has not ended needs them."""
    client.delete_weights(weights_id)
    console.print("deleted")
