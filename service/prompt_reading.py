"""An uploaded file of prompts, read in a process of its own: a few bytes may unpack to more than a machine holds, whatever they say of
themselves, and it is that process alone that then has no memory, or is ended when it takes too long.

`python -P -m service.prompt_reading` is that process: told on stdin, it answers with a line of JSON on stdout. Nothing of the service is
imported here, so that it begins within a second.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment_core.prompt_files import BadRow, PromptsRefused, PromptsReport, line_of, read_prompts

MEMORY_BYTES = 2 << 30  # of addresses; twice what a column may unpack to, and what its libraries take
LONGEST_SECONDS = 300.0
OF_THE_MOMENT = frozenset({"takes_too_long", "needs_too_much_memory"})
"""Refusals that a machine with less to do might not make."""
COMMAND = [sys.executable, "-P", "-m", "service.prompt_reading"]
FEW_ARENAS = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
"""So that what is asked for is what is used: others set addresses aside for each thread."""


@dataclass(frozen=True)
class Read:
    """What a file held, and what its prompts were written as."""

    report: PromptsReport
    sha256: str
    size_bytes: int


def read_apart(path: Path, filename: str, target: Path, *, column: str | None = None) -> Read:
    """Write the prompts of the file at `path`, which its owner calls `filename`, to `target`, as jsonl.

    Raises `PromptsRefused`, also where it would take more than so much memory or so many seconds, and `OSError` of this machine's disk.
    """
    names = {"path": str(path), "filename": filename, "column": column, "target": str(target)}
    asked = {**names, "memory_bytes": MEMORY_BYTES}
    try:
        ended = subprocess.run(
            COMMAND,
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | FEW_ARENAS,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:  # which has killed it
        raise _refused("takes_too_long", f"{filename!r} cannot be read within {LONGEST_SECONDS:g} seconds") from error
    return _told(ended, filename)


def _told(ended: "subprocess.CompletedProcess[bytes]", filename: str) -> Read:
    told: dict[str, Any] = {"memory": True}  # a library that gets none may end its process
    if ended.returncode == 0:
        told = json.loads(ended.stdout)
    match told:
        case {"report": report, "sha256": str() as sha256, "size_bytes": int() as size_bytes}:
            return Read(PromptsReport.model_validate(report), sha256, size_bytes)
        case {"refused": list() as problems}:
            raise PromptsRefused([BadRow(**one) for one in problems])
        case {"disk": int() as number}:
            raise OSError(number, os.strerror(number))
        case _:
            limit = f"{MEMORY_BYTES / 2**30:g} GiB of memory"
            raise _refused(
                "needs_too_much_memory", f"{filename!r} cannot be read with {limit}: what it unpacks to is too large"
            )


def _refused(code: str, message: str) -> PromptsRefused:
    return PromptsRefused([BadRow(None, code, message)])


# --- the process ---------------------------------------------------------------------------------------------------


def main() -> int:
    asked = json.load(sys.stdin)
    _bound(asked["memory_bytes"])
    try:
        answer = _read(Path(asked["path"]), asked["filename"], Path(asked["target"]), asked["column"])
    except PromptsRefused as error:
        answer = {"refused": [asdict(one) for one in error.problems]}
    except MemoryError:
        answer = {"memory": True}
    except OSError as error:
        answer = {"disk": error.errno}
    print(json.dumps(answer), flush=True)  # noqa: T201
    return 0


def _bound(memory_bytes: int) -> None:
    """Where there is such a limit; a crash leaves no core."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(LONGEST_SECONDS), int(LONGEST_SECONDS)))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _read(path: Path, filename: str, target: Path, column: str | None) -> dict[str, Any]:
    digest = hashlib.sha256()
    with target.open("wb") as kept:

        def keep(prompt: str) -> None:
            line = line_of(prompt)
            digest.update(line)
            kept.write(line)

        report = read_prompts(path, filename, keep, column=column)
        size_bytes = kept.tell()
    return {"report": report.model_dump(mode="json"), "sha256": digest.hexdigest(), "size_bytes": size_bytes}


if __name__ == "__main__":
    sys.exit(main())
