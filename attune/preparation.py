"""`attune dataset prepare`: the library reads the data in a process of its own, so that the command stays light."""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEEDED = {"numpy": "numpy", "PIL": "pillow", "pyarrow": "pyarrow"}


def prepare_dataset(
    path: Path, out: Path, columns: Mapping[str, str] | None = None, *, drops_bad_rows: bool = False
) -> dict[str, Any]:
    """Write the preference data at `path` to `out` as canonical parquet; how many rows it has, and which were dropped.

    `ValueError` says which packages are missing, or what is wrong with which row.
    """
    if missing := [package for module, package in NEEDED.items() if find_spec(module) is None]:
        raise ValueError(f"preparing data needs {', '.join(missing)}: pip install {' '.join(missing)}")
    command = [
        sys.executable,
        "-P",
        "-m",
        "alignment_core",
        "prepare",
        str(path.absolute()),
        "--out",
        str(out.absolute()),
    ]
    if columns:
        command += ["--columns", json.dumps(dict(columns))]
    if drops_bad_rows:
        command += ["--on-bad-row", "drop"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads((done.stdout.splitlines() or [""])[-1])
    except ValueError:
        raise ValueError(f"preparing {path} failed:\n{done.stderr[-2000:]}") from None
    if done.returncode:
        raise ValueError(f"{found['message']} [{found['code']}]" + (f"\n{found['hint']}" if found.get("hint") else ""))
    return found


def read_columns(text: str) -> dict[str, str]:
    """`prompt=caption,chosen=good`, or the same as JSON; `ValueError` for anything else."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text, object_pairs_hook=list)
        except ValueError as error:
            raise ValueError(f"--columns is no JSON: {error}") from error
    else:
        found = [(role.strip(), name.strip()) for role, _, name in (one.partition("=") for one in text.split(","))]
    if not all(isinstance(name, str) and role and name for role, name in found):
        raise ValueError(
            f"--columns {text!r}: expected ROLE=COLUMN,..., such as prompt=caption,chosen=good,rejected=bad"
        )
    roles = [role for role, _ in found]
    if twice := sorted({role for role in roles if roles.count(role) > 1}):
        raise ValueError(f"--columns says twice which column {twice[0]!r} is")
    return dict(found)
