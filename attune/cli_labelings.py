"""Commands for pairs that people judge."""

from typing import Annotated

import typer
from rich.console import Console

from alignment_core.spec.counted import counted
from attune.client import Client
from attune.speaking import with_client
from attune.tables import id_column, listing

labelings = typer.Typer(no_args_is_help=True, help="Pairs of candidates that people judge.")
console = Console()


@labelings.command("create")
@with_client
def create(
    client: Client,
    candidates_id: str,
    pairs: Annotated[int, typer.Option(min=1, help="At most this many pairs.")] = 100,
    repeated: Annotated[float, typer.Option(min=0, max=1, help="Share of them that is asked a second time.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Pairs, orders and sides follow from it.")] = 0,
    base: Annotated[str | None, typer.Option(help="Compare blind: the contender that is compared with.")] = None,
    policy: Annotated[str | None, typer.Option(help="Compare blind: the other one.")] = None,
    report_of: Annotated[str | None, typer.Option(help="The job or evaluation whose report tells who won.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
) -> None:
    """Make pairs of candidates for people to judge."""
    if (base is None) != (policy is None):
        raise ValueError("--base and --policy name the two models of a comparison: give both, or neither")
    between = None if base is None or policy is None else (base, policy)
    found = client.labelings.create(
        candidates_id,
        num_pairs=pairs,
        repeated=repeated,
        seed=seed,
        between=between,
        report_of=report_of,
        name=name,
    )
    console.print(found.id, highlight=False)
    console.print(f"{counted(found.num_pairs, 'pair')}, {counted(found.num_questions, 'question')}", highlight=False)


@labelings.command("list")
@with_client
def list_labelings(
    client: Client, limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20
) -> None:
    """Show the newest labelings."""
    table = listing(id_column("lab"), "pairs", "name")
    for _, one in zip(range(limit), client.labelings.list(), strict=False):
        table.add_row(one.id, str(one.num_pairs), one.name or "")
    console.print(table if table.row_count else "no labelings")


@labelings.command("results")
@with_client
def results(client: Client, labeling_id: str) -> None:
    """Show how much was judged, how far people agree, and who won, as JSON."""
    console.print_json(client.labelings.results(labeling_id).model_dump_json())


@labelings.command("dataset")
@with_client
def dataset(
    client: Client,
    labeling_id: str,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    both_bad_is_tie: Annotated[bool, typer.Option("--both-bad-is-tie", help="Else such votes are left out.")] = False,
) -> None:
    """Make a data set of the votes so far."""
    made = client.labelings.make_dataset(labeling_id, name=name, both_bad="tie" if both_bad_is_tie else "drop")
    console.print(made.id, highlight=False)


@labelings.command("delete")
@with_client
def delete(client: Client, labeling_id: str) -> None:
    """Remove a labeling with all its votes."""
    client.labelings.delete(labeling_id)
    console.print("deleted")
