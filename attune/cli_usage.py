"""What jobs took, on a terminal: one with its estimate beside it, or all of a project summed up."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from attune.client import Client
from attune.costs import duration_text
from attune.resources.access import Usage
from attune.resources.jobs import JobUsage
from attune.speaking import with_client
from attune.tables import bytes_of, listing, memory_of

console = Console()


@with_client
def show_job(client: Client, job_id: str) -> None:
    """Show how a job stands and what it took, phase by phase, beside what was estimated."""
    job = client.get_job(job_id)
    console.print(f"{job.id}  {job.status}  {job.name or ''}".rstrip(), highlight=False, markup=False)
    if job.error is not None:
        console.print(job.error.message, highlight=False, markup=False, soft_wrap=True)
    if job.usage is not None:
        console.print(usage_table(job.usage, job.estimate))


@with_client
def show_usage(
    client: Client,
    since: Annotated[datetime | None, typer.Option(help="Attempts that ended at this time or later, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Attempts that ended before this time, in UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
) -> None:
    """Show what the project's jobs took: seconds by phase, of processes and of GPUs, and bytes stored."""
    found = client.admin.usage(since=since, until=until)
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        console.print(usage_table(found, None))


def usage_table(usage: JobUsage | Usage, estimate: Mapping[str, Any] | None) -> Table:
    """Phases in the order in which they were met, then the sums."""
    expected = ((estimate or {}).get("duration") or {}).get("phases", {})
    columns = ("took", "estimated") if isinstance(usage, JobUsage) else ("took",)
    table = listing("", *(Column(name, justify="right") for name in columns))
    for phase, seconds in usage.seconds.items():
        said = [duration_text(expected[phase]["expected"])] if phase in expected else []
        table.add_row(phase, duration_text(seconds), *said)
    table.add_row("processes", duration_text(usage.process_seconds))
    table.add_row("GPUs", duration_text(usage.gpu_seconds))
    table.add_row("stored", bytes_of(usage.stored_bytes))
    if isinstance(usage, JobUsage):
        _add_of_job(table, usage)
    return table


def _add_of_job(table: Table, usage: JobUsage) -> None:
    for name, peak in (("device memory", usage.peak_device_gib), ("host memory", usage.peak_host_gib)):
        if peak is not None:
            table.add_row(name, memory_of(peak), "")
    table.add_row("attempts", str(usage.num_attempts), "")
    if usage.estimated_seconds is not None:
        ratio = "" if usage.over_estimate is None else f"{usage.over_estimate:.2f} times"
        table.add_row("after the queue", ratio, duration_text(usage.estimated_seconds))
