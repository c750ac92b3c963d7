"""Commands that have images drawn for people to judge."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alignment_core.spec.counted import counted
from attune.cli_contests import newest, num_images
from attune.client import Client
from attune.failing import fail
from attune.speaking import with_client
from attune.specs import read_spec

candidates = typer.Typer(no_args_is_help=True, help="Images that models draw for people to judge.")
console = Console()


@candidates.command("draw")
@with_client
def draw(
    client: Client,
    file: Annotated[Path, typer.Argument(help="A spec of candidates, YAML or JSON: docs/labeling.md has some.")],
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save every image in this folder.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for their end.")] = True,
    dry_run: Annotated[
        bool, typer.Option(help="Only say what would be wrong, and how many images it would be.")
    ] = False,
) -> None:
    """Have models draw prompts, as candidates that people judge."""
    written = read_spec(file)
    spec = written.get("spec", written)
    if dry_run:
        console.print(num_images(client.candidates.validate(spec), file), highlight=False)
        return
    made = client.candidates.create(spec, name=name or written.get("name"))
    console.print(made.id, highlight=False)
    if wait:
        ended = client.candidates.wait(made.id)
        if ended.status != "succeeded":
            fail(ended.error.message if ended.error is not None else f"the candidates are {ended.status}")
        console.print(f"{counted(ended.progress.done, 'image')}", highlight=False)
        if out is not None:
            _save(client, made.id, out)


@candidates.command("list")
@with_client
def list_candidates(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest candidates."""
    table = newest("cand", client.candidates.list(), limit)
    console.print(table if table.row_count else "no candidates")


@candidates.command("get")
@with_client
def get_candidates(client: Client, candidates_id: str) -> None:
    """Show candidates as JSON."""
    console.print_json(client.candidates.get(candidates_id).model_dump_json())


@candidates.command("images")
@with_client
def images(
    client: Client, candidates_id: str, out: Annotated[Path, typer.Option(help="The folder that receives them.")]
) -> None:
    """Save every image that is there."""
    _save(client, candidates_id, out)


@candidates.command("logs")
@with_client
def logs(client: Client, candidates_id: str) -> None:
    """Show the end of what the processes that draw them printed."""
    console.print(client.candidates.logs(candidates_id), highlight=False, markup=False, soft_wrap=True)


@candidates.command("pause")
@with_client
def pause(client: Client, candidates_id: str) -> None:
    """Have them leave the machine to others; the images that are there stay."""
    console.print(client.candidates.pause(candidates_id).status)


@candidates.command("cancel")
@with_client
def cancel(client: Client, candidates_id: str) -> None:
    """Stop drawing for good; the images that are there stay."""
    console.print(client.candidates.cancel(candidates_id).status)


@candidates.command("resume")
@with_client
def resume(client: Client, candidates_id: str) -> None:
    """Queue ones again that failed or are paused."""
    console.print(client.candidates.resume(candidates_id).status)


@candidates.command("delete")
@with_client
def delete(client: Client, candidates_id: str) -> None:
    """Remove candidates that have ended, with all their images."""
    client.candidates.delete(candidates_id)
    console.print("deleted")


def _save(client: Client, candidates_id: str, folder: Path) -> None:
    saved = client.candidates.download(candidates_id, folder)
    console.print(f"{counted(len(saved), 'image')} in {folder}", highlight=False, soft_wrap=True)
