"""Two real processes that answer one request after the other: starting them costs more than the tiny runs that they are asked for."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal

from tests.servers.process import running, wait_until

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
RANKS = (0, 1)
Request = Literal["runs", "states"]


class Pair:
    """Started at the first request, and again after one that ended them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder
        self._process: Popen[bytes] | None = None
        self._alive = ExitStack()
        self._num_asked = 0

    def ask(self, request: Request, what: Any) -> None:
        """Have both processes do it (`answers.py` says how); raises with what they wrote where one of them fails."""
        process = self._started()
        number, self._num_asked = self._num_asked, self._num_asked + 1
        written = self._home / "request"
        written.write_text(json.dumps({"request": request, "what": what}))
        written.rename(self._home / f"{number}.json")
        answers = [self._home / f"{number}-{rank}" for rank in RANKS]

        def is_over() -> bool:
            return all(answer.exists() for answer in answers) or process.poll() is not None

        try:
            wait_until(is_over, f"an answer to {request}", timeout_seconds=300)
            assert all(answer.exists() for answer in answers), (self._home / "log").read_text()[-4000:]
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self._alive.close()
        self._process = None

    def _started(self) -> "Popen[bytes]":
        if self._process is None:
            self._home, self._num_asked = Path(tempfile.mkdtemp(dir=self._folder)), 0
            program = ["-m", "tests.alignment_core.collective.answers", self._home]
            self._process = self._alive.enter_context(running([*LAUNCHER, *program], self._home / "log"))
        return self._process


@contextmanager
def new_pair(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        yield pair
    finally:
        pair.end()
