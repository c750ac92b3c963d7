"""Commands for sweeps: start one, see its table, cancel it."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from attune.cli_data import uploaded
from attune.client import Client
from attune.resources.sweeps import Score, SourceScore, Sweep, Trial
from attune.speaking import with_client
from attune.specs import JobFile, read_spec
from attune.tables import age_of, id_column, listing

sweeps = typer.Typer(no_args_is_help=True, help="Run a job for each of several settings, and compare them.")
DATASET_ID = re.compile(r"ds_[0-9a-z]{26}")
console = Console()


@sweeps.command("start")
@with_client
def start_sweep(
    client: Client,
    file: Annotated[Path, typer.Argument(help="The body of `POST /v1/sweeps`; YAML or JSON.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Id of an uploaded data set, or a file or folder to upload first, in place of the spec's."),
    ] = None,
) -> None:
    """Queue a sweep, and print its id."""
    body = read_spec(file)
    if dataset is not None:
        found = dataset if DATASET_ID.fullmatch(dataset) else uploaded(client, Path(dataset)).id
        body = {**body, "spec": JobFile(file, dict(body.get("spec") or {}), is_body=True).with_dataset(found).spec}
    console.print(client.create_sweep(body).id, highlight=False)


@sweeps.command("show")
@with_client
def show_sweep(
    client: Client,
    sweep_id: str,
    as_json: Annotated[bool, typer.Option("--json", help="The whole sweep as JSON.")] = False,
) -> None:
    """Show how the trials of a sweep compare with each other and with the model that they started from."""
    found = client.get_sweep(sweep_id)
    if as_json:
        console.print_json(found.model_dump_json())
        return
    console.print(sweep_table(found))
    console.print(verdict_of(found), highlight=False, soft_wrap=True)


@sweeps.command("list")
@with_client
def list_sweeps(client: Client) -> None:
    """Show the sweeps, the newest first."""
    table = listing(id_column("swp"), Column("trials", justify="right"), "created", "name")
    for one in client.sweeps():
        table.add_row(one.id, str(one.num_trials), age_of(one.created_at), one.name or "")
    console.print(table if table.row_count else "no sweep")


@sweeps.command("delete")
@with_client
def delete_sweep(client: Client, sweep_id: str) -> None:
    """Remove a sweep that is over, with its table; its jobs stay."""
    client.delete_sweep(sweep_id)
    console.print("deleted")


@sweeps.command("cancel")
@with_client
def cancel_sweep(client: Client, sweep_id: str) -> None:
    """Queue no further trial, and cancel the jobs that have not ended."""
    client.cancel_sweep(sweep_id)
    console.print("cancelled")


def sweep_table(sweep: Sweep) -> Table:
    """A row a trial, under the row of the source: the first reward with its gain's interval, corrected p-value, and what was set."""
    table = listing(
        "trial", "status", "mean", "gain", Column("p (Holm)", justify="right"), Column("set", overflow="fold")
    )
    if sweep.table.source:
        first = sweep.table.source.scores[0]
        table.add_row("source", "", _mean_of(first), "", "", f"{sweep.table.source.model}, {first.name}")
    for trial in sweep.table.trials:
        mark = " best" if trial.number == sweep.table.best else ""
        table.add_row(f"{trial.number}{mark}", _status_of(trial), *_figures_of(trial), _set_in(trial))
    return table


def verdict_of(sweep: Sweep) -> str:
    table = sweep.table
    if not table.is_over:
        return "some trials have not ended: none is called best yet"
    if not table.is_comparable:
        return "the trials started from different models, or drew other prompts or seeds: none is called best"
    if table.best is None:
        return "no trial is better than the source beyond the correction for their number"
    best = next(one for one in table.trials if one.number == table.best)
    return f"best: trial {best.number}, {best.job_id}"


def _mean_of(score: Score | SourceScore) -> str:
    found = score.mean_interval
    return f"{score.mean:.3f}" + ("" if found is None else f" ({found.low:.3f} .. {found.high:.3f})")


def _status_of(trial: Trial) -> str:
    return f"{trial.status}, stopped by {trial.stopped_by}" if trial.stopped_by else trial.status


def _figures_of(trial: Trial) -> tuple[str, str, str]:
    if not trial.scores:
        return "", "", ""
    first = trial.scores[0]
    p_value = "" if first.holm_p_value is None else f"{first.holm_p_value:.2g}"
    return _mean_of(first), f"{first.gain:+.3f} ({first.low:+.3f} .. {first.high:+.3f})", p_value


def _set_in(trial: Trial) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in trial.point.items())
