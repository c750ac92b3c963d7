"""What was tried before a run, for a terminal."""

from rich.table import Column, Table

from attune.resources.jobs import StartChecks
from attune.tables import bytes_of, listing


def checks_table(found: StartChecks) -> Table:
    """What was tried, how long it took and what it found; then what a checkpoint will take."""
    table = listing("check", Column("seconds", justify="right"), Column("found", overflow="fold"))
    for one in found.checks:
        table.add_row(one.check, f"{one.seconds:.2f}", one.detail)
    table.add_row("all", f"{found.seconds:.2f}", f"a checkpoint takes {bytes_of(found.checkpoint_bytes)}")
    return table
