"""What `gpu.sh` would run on a machine with a GPU are commands that there are, with options that they take."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def asked_for(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """The module of each command and its options, as the script gives them to Python."""
    words, out = folder / "words", folder / "out"
    words.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    words.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(words)}
    done = subprocess.run([SCRIPT, out], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in out.glob("*/log.txt"):
        flag, module, *options = path.read_text().splitlines()
        assert flag == "-m", path
        found[path.parent.name] = module, options
    return found


def test_every_command_takes_its_options(tmp_path: Path) -> None:
    commands = asked_for(tmp_path)
    listed = subprocess.run([SCRIPT, "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(commands) == listed
    assert len(listed) > 25
    for name, (module, options) in commands.items():
        if name != "tests":
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), name
            import_module(module)._parser().parse_args(options)


@pytest.mark.slow
def test_the_tests_of_a_gpu_are_there(tmp_path: Path) -> None:
    module, options = asked_for(tmp_path)["tests"]
    command = [sys.executable, "-m", module, *options, "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("tests/gpu/") > 10


@pytest.mark.slow
def test_the_script_measures_and_says_what_failed(tmp_path: Path) -> None:
    """On a CPU, the smallest model, a command whole and one that cannot end in its time."""
    environment = {**os.environ, "PYTHON": sys.executable, "SIZE": "tiny"}
    done = subprocess.run([SCRIPT, tmp_path, "lora-fp32"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"step.json", "step.svg", "log.txt"} <= {path.name for path in (tmp_path / "lora-fp32").iterdir()}
    late = {**environment, "LIMIT_SECONDS": "1"}
    done = subprocess.run([SCRIPT, tmp_path, "precision"], env=late, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "failed: precision (over 1 s)\n")


@pytest.mark.slow
def test_a_step_alone_is_measured_against_its_estimate(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peak", "--size", "tiny", "--batch", "2", "--out", tmp_path / "peak"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "peak.json").is_file()
    assert (tmp_path / "peak.svg").is_file()
    (line,) = done.stdout.splitlines()
    assert '"failed"' not in line, line
