"""Job specs as files: YAML or JSON."""

import json
from pathlib import Path
from typing import Any


def read_spec(path: Path) -> dict[str, Any]:
    """The mapping in a `.json`, `.yaml` or `.yml` file; `ValueError` names the file and what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    try:
        found = json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not well formed: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a mapping, such as `model: ...`, not a {type(found).__name__}")
    return found


def _read_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
