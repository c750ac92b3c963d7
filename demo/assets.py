"""The files of the demo model that come with the source, and the proof that they are unchanged."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
GATES_FILE = "gates.json"
BUILT = ("model", "classifiers", "pairs.parquet", "prompts.txt")


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` that a build makes, by relative path."""
    parts = [folder / part for part in BUILT]
    files = [part for part in parts if part.is_file()]
    return digests_of(folder, [*files, *(path for part in parts for path in part.rglob("*") if path.is_file())])


def digests_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of `files`, by their path from `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def read_gates(folder: Path = ASSETS) -> dict[str, Any]:
    """What the build measured and wrote down as `gates.json`."""
    return json.loads((folder / GATES_FILE).read_text())


def verify_assets(folder: Path = ASSETS) -> None:
    """Raises ValueError naming each file that is missing, changed or unknown to `gates.json`."""
    refuse_changes(read_gates(folder)["files"], file_digests(folder))


def refuse_changes(expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Raises ValueError naming each file whose digest is not the expected one."""
    wrong = [path for path in sorted({*expected, *actual}) if expected.get(path) != actual.get(path)]
    if wrong:
        raise ValueError(f"files that do not match {GATES_FILE}: {', '.join(wrong)}")
