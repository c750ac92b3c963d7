"""MLflow's own tracking server, for whoever has one installed: the whole `mlflow` is 400 MB of packages that nothing here needs beside it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import accepts_connections, free_port, running, wait_until

MLFLOW = "ATTUNE_TEST_MLFLOW"  # the path of a `mlflow` command, in an environment of its own


@contextlib.contextmanager
def mlflow_server(command: str, folder: Path) -> Iterator[str]:
    """Its address: a SQLite store, and artifacts that go through the server."""
    folder.mkdir()
    port, log = free_port(), folder / "server.log"
    arguments = [
        *(command, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.sqlite3'}"),
        *("--artifacts-destination", folder / "artifacts", "--serve-artifacts"),
    ]
    # of this process's environment it takes no packages, and no server to be a client of
    with running(arguments, log, {"MLFLOW_TRACKING_URI": "", "PYTHONPATH": "", "VIRTUAL_ENV": ""}) as process:
        # it makes its tables first, one revision after the other
        wait_until(lambda: accepts_connections(port) or process.poll() is not None, "MLflow's server answering", 180)
        assert process.poll() is None, log.read_text()[-2000:]
        yield f"http://127.0.0.1:{port}"
