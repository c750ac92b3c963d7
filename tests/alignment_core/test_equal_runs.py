"""Two processes that run the same spec write the same files, and have nothing to complain of."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.alignment_core.tiny import tiny_spec

# When, and how fast: what equal runs may differ in
TIMES = {"created_at", "written_at", "elapsed_seconds", "throughput"}
TIMES_ON_PAGE = re.compile(
    rb"<dt>(?:evaluation took|training pace)</dt>\s*<dd>[^<]*</dd>|\d+ [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC"
)
EVALUATION = {
    "prompts": ["a red circle"],
    "rewards": [{"type": "brightness"}],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "bootstrap_resamples": 100,
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["lora", "full"])
def runs(
    request: pytest.FixtureRequest, tiny_model: Path, tiny_pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The work folders of two runs, each with its own order of hashes, the second in a process that waited for it; `log` has what the process said beside its events."""
    training = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "validation_fraction": 0.2}
    adapter = {"type": request.param}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter, training=training, evaluation=EVALUATION)
    folder = tmp_path_factory.mktemp("equal")
    (folder / "spec.json").write_text(spec.model_dump_json())
    started = [_start(folder, "one", 1), _start(folder, "two", 2, waits=True)]
    for process in started:
        assert process.wait(timeout=300) == 0
        if process.stdin is not None:
            process.stdin.close()
    return folder / "one", folder / "two"


def _start(folder: Path, name: str, hash_seed: int, *, waits: bool = False) -> subprocess.Popen[bytes]:
    workdir = folder / name
    workdir.mkdir()
    arguments = ["run", str(folder / "spec.json"), "--workdir", str(workdir)]
    arguments += ["--cache-dir", str(folder / f"cache-{name}")]
    command = [sys.executable, "-m", "alignment_core", *(["wait"] if waits else arguments)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    with (folder / f"{name}.log").open("wb") as log, (folder / f"{name}.events").open("wb") as events:
        stdin = subprocess.PIPE if waits else subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=stdin, stdout=events, stderr=log, env=environment)
    if process.stdin is not None:  # left open, as its end asks a run to leave
        job = {"arguments": arguments, "environment": {}, "cwd": str(folder)}
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    return process


def contents(workdir: Path) -> dict[str, Any]:
    """Every file's bytes by its name; of JSON and the report's page without the times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in workdir.rglob("*") if path.is_file()):
        content: Any = path.read_bytes()
        if path.suffix == ".json":
            content = list(_without_times(json.loads(content)))
        if path.suffix == ".html":
            content = TIMES_ON_PAGE.sub(b"", content)
        found[path.relative_to(workdir).as_posix()] = content
    return found


def _without_times(value: object) -> Any:
    """The value in its own order, keys included, since that is what a file's sum depends on."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in TIMES:
                yield key, list(_without_times(inner))
    elif isinstance(value, list):
        for inner in value:
            yield list(_without_times(inner))
    else:
        yield value


def test_equal_runs_write_equal_files(runs: tuple[Path, Path]) -> None:
    one, two = (contents(workdir) for workdir in runs)
    assert one.keys() == two.keys()
    assert any(name.endswith(".safetensors") for name in one)
    assert [name for name in one if one[name] != two[name]] == []


def test_the_weights_do_not_tell_where_the_operators_model_is(runs: tuple[Path, Path], tiny_model: Path) -> None:
    written = [path for path in (runs[0] / "checkpoints").rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert [path.name for path in written if str(tiny_model).encode() in path.read_bytes()] == []


def test_a_healthy_run_logs_nothing_alarming(runs: tuple[Path, Path]) -> None:
    for workdir in runs:
        assert workdir.with_suffix(".log").read_text() == ""
