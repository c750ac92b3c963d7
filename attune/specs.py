"""Jobs as files: a spec, or the whole body of `POST /v1/jobs`, in YAML or JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

BODY_FIELDS = ("metadata", "name", "pins", "resume_from", "retention", "spec")


@dataclass(frozen=True)
class JobFile:
    """A job as somebody wrote it down. Nothing of the spec is checked here: the server has the rules."""

    path: Path
    spec: dict[str, Any]
    is_body: bool
    name: str | None = None
    metadata: dict[str, str] | None = None
    resume_from: str | None = None  # id of a checkpoint
    retention: dict[str, Any] | None = None
    pins: dict[str, Any] | None = None

    def with_dataset(self, dataset_id: str) -> "JobFile":
        """The same with an uploaded data set in place of its own."""
        method = self.spec.get("method", {})
        method = {"type": method} if isinstance(method, str) else method
        if not isinstance(method, dict):
            raise ValueError(f"{self.path}: {self._shown('/spec/method')}: expected a mapping, not {method!r}")
        dataset = {"type": "stored", "id": dataset_id}
        return replace(self, spec={**self.spec, "method": {**method, "dataset": dataset}})

    def told(self, problems: Iterable[Mapping[str, Any]]) -> str:
        """What a server found wrong, with the pointers that hold in the file, and what to do about it."""
        found = list(problems)
        lines = [f"{self._shown(one.get('pointer') or '')}: {one.get('message')}" for one in found]
        text = f"{self.path}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{self.path} cannot be used:", *lines])
        return "\n".join([text, *(hint for one in found if (hint := self._hint(one)))])

    def _shown(self, pointer: str) -> str:
        return (pointer if self.is_body else pointer.removeprefix("/spec")) or "the file"

    def _hint(self, problem: Mapping[str, Any]) -> str | None:
        if problem.get("code") != "local_path_refused" or problem.get("pointer") != "/spec/method/dataset/path":
            return None
        path = self.spec["method"]["dataset"]["path"]
        return f"upload it and pass --dataset: attune job submit {self.path} --dataset $(attune dataset upload {path})"


def read_job(path: Path) -> JobFile:
    """The job in a file; `ValueError` names the file and what is wrong with it."""
    found = read_spec(path)
    if "spec" not in found:
        return JobFile(path, found, is_body=False)
    for name in found:
        if name not in BODY_FIELDS:
            raise ValueError(
                f"{path}: /{name}: unknown field; beside spec there may be metadata, name, pins, resume_from and retention"
            )
    _expect(path, "spec", found["spec"], dict)
    _expect(path, "metadata", found.get("metadata"), dict | None)
    _expect(path, "name", found.get("name"), str | None)
    _expect(path, "resume_from", found.get("resume_from"), dict | None)
    _expect(path, "retention", found.get("retention"), dict | None)
    _expect(path, "pins", found.get("pins"), dict | None)
    return JobFile(
        path,
        found["spec"],
        is_body=True,
        name=found.get("name"),
        metadata=found.get("metadata"),
        resume_from=(found.get("resume_from") or {}).get("checkpoint_id"),
        retention=found.get("retention"),
        pins=found.get("pins"),
    )


def _expect(path: Path, field: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        expected = "text" if field == "name" else "a mapping"
        raise ValueError(f"{path}: /{field}: expected {expected}, not {value!r}")


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
