"""What `gpu.sh` would run on a machine with a GPU are commands that there are, with options that they take."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_PARSERS = ("train_step", "rollout", "evaluation", "peak")


def test_every_command_takes_its_options(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    words.chmod(0o755)
    script, out = ROOT / "benchmarks" / "gpu.sh", tmp_path / "out"
    environment = {**os.environ, "PYTHON": str(words)}
    done = subprocess.run([script, out], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = {path.parent.name: path.read_text().splitlines() for path in out.glob("*/log.txt")}
    assert len(commands) > 25
    for name, (flag, module, *options) in commands.items():
        assert flag == "-m", name
        if module != "pytest":
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), name
        if module.removeprefix("benchmarks.") in WITH_PARSERS:
            import_module(module)._parser().parse_args(options)


@pytest.mark.slow
def test_a_step_alone_is_measured_against_its_estimate(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peak", "--size", "tiny", "--batch", "2", "--out", tmp_path / "peak"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "peak.json").is_file()
    (line,) = done.stdout.splitlines()
    assert '"failed"' not in line, line
