"""The audit log and the quotas of a project on a terminal."""

from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from attune.admin import Outcome
from attune.client import Client
from attune.resources.access import Quota
from attune.speaking import with_client
from attune.tables import bytes_of, listing

console = Console()


@with_client
def show_audit(
    client: Client,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 20,
    key: Annotated[str | None, typer.Option(help="Only what was done with this key.")] = None,
    thing: Annotated[str | None, typer.Option("--object", help="Only what was done to this id, or made it.")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only what ended so.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Not before this time, in UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, one JSON object a line.")] = False,
) -> None:
    """Show who did what in the project. Asks for a key with the scope admin."""
    found = client.admin.audit(key_id=key, object_id=thing, outcome=outcome, since=since)
    table = listing("time", "outcome", "from", Column("what", overflow="fold"))
    for _, one in zip(range(limit), found, strict=False):
        if as_json:
            typer.echo(one.model_dump_json())
        else:
            what = " ".join((one.action, *one.object_ids, *([one.key_id] if one.key_id else [])))
            table.add_row(f"{one.time:%Y-%m-%d %H:%M:%S}", one.outcome, one.remote or "", what)
    if not as_json:
        console.print(table if table.row_count else "nothing was done")


@with_client
def show_quotas(client: Client) -> None:
    """Show what the project may take and has taken: jobs, submits of the hour, GPU-hours of the month, bytes."""
    table = listing("quota", Column("used", justify="right"), Column("limit", justify="right"), "resets")
    for one in client.admin.quotas():
        resets = "" if one.resets_at is None else f"{one.resets_at:%Y-%m-%d %H:%M} UTC"
        limit = "none" if one.limit is None else _amount(one, one.limit)
        table.add_row(one.id, _amount(one, one.used), limit, resets)
    console.print(table)


def _amount(quota: Quota, value: float) -> str:
    if quota.id == "bytes":
        return bytes_of(int(value))
    return f"{value:.10g}" if value == int(value) else f"{value:.2f}"
