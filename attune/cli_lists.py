"""Commands that show what a server has: data sets, checkpoints, events, metrics, and what can be asked for."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from attune.client import Client
from attune.resources.catalog import CatalogEntry
from attune.resources.data import Pair
from attune.resources.jobs import JobStatus
from attune.resources.runs import MetricPoint
from attune.speaking import with_client
from attune.tables import age_of, bytes_of, id_column, listing, steps_of

Limit = Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")]
console = Console()
TIE = 0.5


def add_to(commands: typer.Typer, jobs: typer.Typer, datasets: typer.Typer, checkpoints: typer.Typer) -> None:
    """Put the commands of this file into their groups."""
    for group, name, command in (
        (jobs, "list", list_jobs),
        (jobs, "events", job_events),
        (jobs, "metrics", job_metrics),
        (datasets, "list", list_datasets),
        (datasets, "get", get_dataset),
        (datasets, "pairs", list_pairs),
        (checkpoints, "list", list_checkpoints),
        (commands, "models", list_models),
        (commands, "methods", list_methods),
        (commands, "rewards", list_rewards),
    ):
        group.command(name)(command)


@with_client
def list_jobs(
    client: Client,
    limit: Limit = 20,
    status: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    method: Annotated[str | None, typer.Option(help="Only jobs of this method.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
) -> None:
    """Show the newest jobs."""
    table = listing(id_column("job"), "status", Column("step", justify="right"), "created", "name")
    found = client.jobs(status=[_status(one) for one in status or ()], method=method, model=model)
    for _, job in zip(range(limit), found, strict=False):
        table.add_row(job.id, job.status, steps_of(job.progress), age_of(job.created_at), job.name or "")
    _show(table, "no job" if status is None and method is None and model is None else "no such job")


def _status(text: str) -> JobStatus:
    for known in get_args(JobStatus):
        if text == known:
            return known
    raise ValueError(f"--status {text}: expected one of {', '.join(get_args(JobStatus))}")


@with_client
def job_events(
    client: Client,
    job_id: str,
    kind: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until the job ends.")
    ] = False,
) -> None:
    """Print what happened in a job, one JSON object a line."""
    for event in client.events(job_id) if follow else client.past_events(job_id):
        if not kind or event.type in kind:
            typer.echo(event.model_dump_json())


@with_client
def job_metrics(
    client: Client,
    job_id: str,
    keys: Annotated[str | None, typer.Option(help="Names, separated by commas; all of them when left out.")] = None,
    points: Annotated[int, typer.Option(min=2, help="At most this many steps, evenly spaced.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a line.")] = False,
) -> None:
    """Show a job's figures by step."""
    wanted = [key for key in (keys or "").split(",") if key]
    found = client.metrics(job_id, keys=wanted, max_points=points)
    if as_json:
        for point in found:
            typer.echo(point.model_dump_json())
        return
    _show(_metrics_table(found, wanted), "no metrics yet")


def _metrics_table(points: Sequence[MetricPoint], wanted: Sequence[str]) -> Table:
    names = wanted or sorted({name for point in points for name in point.metrics})
    table = listing(Column("step", justify="right"), *(Column(name, justify="right") for name in names))
    for point in points:
        values = (point.metrics.get(name) for name in names)
        table.add_row(str(point.step), *("" if value is None else f"{value:.4g}" for value in values))
    return table


@with_client
def list_datasets(client: Client, limit: Limit = 20) -> None:
    """Show the newest data sets."""
    numbers = (Column(name, justify="right") for name in ("rows", "size", "encoded"))
    table = listing(id_column("ds"), "status", *numbers, "name")
    for _, one in zip(range(limit), client.datasets(), strict=False):
        rows = "" if one.num_usable_rows is None else f"{one.num_usable_rows:,}"
        encoded = bytes_of(one.encoded_bytes) if one.encoded_bytes else ""
        table.add_row(one.id, one.status, rows, bytes_of(one.size_bytes), encoded, one.name or one.filename)
    _show(table, "no data set")


@with_client
def get_dataset(client: Client, dataset_id: str) -> None:
    """Show one data set as JSON."""
    console.print_json(client.get_dataset(dataset_id).model_dump_json())


@with_client
def list_pairs(
    client: Client,
    dataset_id: str,
    problem: Annotated[str | None, typer.Option(help="Only rows with this problem, by its code in the report.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Begin behind this row.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a line.")] = False,
) -> None:
    """Show the rows of a data set, with what its check says of each."""
    found = islice(client.dataset_pairs(dataset_id, problem=problem, after_row=after), limit)
    if as_json:
        for one in found:
            typer.echo(one.model_dump_json())
        return
    columns = (Column("prompt", overflow="fold"), Column("problems", overflow="fold"))
    table = listing(Column("row", justify="right"), "judged", *columns)
    for one in found:
        table.add_row(str(one.row), _judged(one), Text(one.prompt or ""), Text("; ".join(_problems(one))))
    _show(table, "no such row" if problem or after else "no row")


def _judged(pair: Pair) -> str:
    if pair.liked is not None:
        return "liked" if pair.liked else "disliked"
    return "" if pair.label is None else "tie" if pair.label == TIE else f"{pair.label:g}"


def _problems(pair: Pair) -> list[str]:
    return [f"{one.code}: {one.message}" for one in pair.problems]


@with_client
def list_checkpoints(client: Client, job_id: str) -> None:
    """Show what a job has saved, the earliest step first."""
    table = listing(id_column("ckpt"), Column("step", justify="right"), "kind", Column("size", justify="right"), "")
    for one in client.checkpoints(job_id):
        marks = [
            *(["best"] if one.is_best else []),
            *(["final"] if one.is_final else []),
            *(["pinned"] if one.is_pinned else []),
        ]
        table.add_row(one.id, str(one.step), one.kind, bytes_of(one.size_bytes), ", ".join(marks))
    _show(table, "no checkpoint yet")


@with_client
def list_models(client: Client) -> None:
    """Show the models that jobs may name."""
    size = (Column("side", justify="right"), Column("parameters", justify="right"))
    table = listing("name", "family", *size, _description())
    for one in client.models():
        parameters = "" if one.num_parameters is None else f"{one.num_parameters / 1e6:,.1f} M"
        refusal = "" if one.problem is None else f" CANNOT BE TRAINED: {one.problem}"
        table.add_row(
            one.id,
            one.family or "",
            "" if one.resolution is None else f"{one.resolution} px",
            parameters,
            f"{one.description}{refusal}".strip(),
        )
    _show(table, "the operator's catalog has no model; name one of the Hub by repository and commit")


@with_client
def list_methods(client: Client) -> None:
    """Show the methods that jobs may ask for; GET /v1/methods has their schemas and examples."""
    _show(_described(client.methods()), "no method")


@with_client
def list_rewards(client: Client) -> None:
    """Show the rewards that methods and evaluations may use; GET /v1/rewards has their schemas."""
    _show(_described(client.rewards()), "no reward")


def _described(entries: Iterable[CatalogEntry]) -> Table:
    table = listing("name", _description())
    for one in entries:
        table.add_row(one.id, one.description.partition("\n\n")[0])  # the rest is for those who write a spec
    return table


def _description() -> Column:
    return Column("description", overflow="fold")


def _show(table: Table, when_empty: str) -> None:
    console.print(table if table.row_count else when_empty, highlight=False)
