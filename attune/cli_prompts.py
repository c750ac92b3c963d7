"""Commands for prompt sets."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from alignment_core.prompt_files import PromptsReport
from attune.client import Client
from attune.speaking import with_client
from attune.tables import age_of, id_column, listing
from attune.upload_bar import upload_bar

prompts = typer.Typer(no_args_is_help=True, help="Upload prompts that specs name.")
console = Console()
notes = Console(stderr=True)


@prompts.command("upload")
@with_client
def upload_prompts(
    client: Client,
    path: Annotated[Path, typer.Argument(help="Text with a prompt a line, jsonl, a JSON list, CSV, TSV or parquet.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    column: Annotated[str | None, typer.Option(help="The column or key, where its name does not say so.")] = None,
) -> None:
    """Upload prompts and print the id that a spec names: `prompts: ps_...`."""
    with upload_bar() as progress:
        uploaded = client.upload_prompts(path, name=name, column=column, progress=progress)
    for line in left_out(uploaded.report):
        notes.print(line, highlight=False, soft_wrap=True)
    console.print(uploaded.id, highlight=False)


def left_out(report: PromptsReport) -> list[str]:
    """What of the file is not in the set."""
    found = (
        (report.num_duplicates, report.duplicate_rows, ("repeats an earlier prompt", "repeat earlier prompts")),
        (report.num_empty, report.empty_rows, ("is empty", "are empty")),
    )
    return [_told(num, rows, *why) for num, rows, why in found if num]


def _told(num: int, rows: list[int], of_one: str, of_many: str) -> str:
    if num == 1:
        return f"left out: 1 row {of_one} ({_rows(rows)})"
    return f"left out: {num} rows {of_many} (the first: {_rows(rows)})"


def _rows(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:5]))


@prompts.command("list")
@with_client
def list_prompt_sets(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest prompt sets."""
    table = listing(id_column("ps"), Column("prompts", justify="right"), "uploaded", "name")
    for one in islice(client.prompt_sets(), limit):
        table.add_row(one.id, f"{one.num_prompts:,}", age_of(one.created_at), one.name or one.filename)
    console.print(table if table.row_count else "no prompt set", highlight=False)


@prompts.command("show")
@with_client
def show_prompts(
    client: Client,
    prompt_set_id: str,
    limit: Annotated[int, typer.Option(min=1, help="At most this many prompts.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="What is known of the set, as JSON.")] = False,
) -> None:
    """Print the first prompts of a set, one a line."""
    if as_json:
        console.print_json(client.get_prompt_set(prompt_set_id).model_dump_json())
        return
    for prompt in islice(client.prompts(prompt_set_id), limit):
        typer.echo(prompt)


@prompts.command("download")
@with_client
def download_prompts(
    client: Client, prompt_set_id: str, target: Annotated[Path, typer.Argument(help="The jsonl file to write.")]
) -> None:
    """Download a set as jsonl, checked against its hash."""
    console.print(str(client.download_prompts(prompt_set_id, target)), highlight=False, soft_wrap=True)


@prompts.command("delete")
@with_client
def delete_prompts(client: Client, prompt_set_id: str) -> None:
    """Remove a prompt set for good; refused while a job that has not ended needs it."""
    client.delete_prompts(prompt_set_id)
    console.print("deleted")
