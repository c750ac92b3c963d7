"""`wait`: import what a run needs, and run once stdin says what; so a worker's next job need not wait for imports.

A line of JSON is awaited: `{"arguments": [...], "environment": {...}, "cwd": ...}`, arguments being those of `run`, `evaluate` or `draw`. An empty line on stdout says that
it is awaited, another that it was read; the end of stdin instead of a line ends the wait. Nothing of a job is known before that, and
there is no second one.
"""

import json
import os
from importlib import import_module

from alignment_core.commands.arguments import parser
from alignment_core.commands.evaluate import evaluate
from alignment_core.commands.outcome import EXIT_COMPLETED
from alignment_core.commands.run import run
from alignment_core.lean_imports import lean_imports


def wait() -> int:
    with lean_imports():
        import_module("alignment_core.alignment")
    _say()
    line = _line_of(0)
    if not line:
        return EXIT_COMPLETED
    job = json.loads(line)
    os.environ.update(job["environment"])
    os.chdir(job["cwd"])
    _say()
    asked = parser(None).parse_args(job["arguments"])
    return evaluate(asked) if asked.command in ("evaluate", "draw") else run(asked)


def _say() -> None:
    print(flush=True)  # noqa: T201


def _line_of(descriptor: int) -> bytes:
    """The first line, read no further than is there: what comes after it, or its end, is for the run to hear."""
    received = b""
    while not received.endswith(b"\n"):
        if not (chunk := os.read(descriptor, 65_536)):
            return b""
        received += chunk
    return received
