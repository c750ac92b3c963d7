"""How far an upload is, on a terminal; where the output is a file or a pipe nothing is said."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from attune.uploads import Progress


@contextmanager
def upload_bar(console: Console | None = None) -> Iterator[Progress | None]:
    """What to tell of an upload while it lasts; on the error output, since the id is what a command prints."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("upload", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
