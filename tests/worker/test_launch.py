"""The command that starts a training, in as many processes as its job asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.launch import ALONE, launched


def test_one_process_needs_no_launcher() -> None:
    assert launched(ALONE, 1) == [sys.executable, "-P", "-m", "alignment_core"]


def test_several_are_started_by_torchrun_on_a_port_of_their_own() -> None:
    *launcher, module = launched(ALONE, 4)
    assert launcher[-3:] == ["--nproc-per-node", "4", "-m"]
    assert "--standalone" in launcher
    assert module == "alignment_core"


@pytest.mark.parametrize("processes", [1, 4])
def test_an_operators_command_is_told_how_many_where_it_asks(processes: int) -> None:
    asks = ("accelerate", "launch", "--num_processes={processes}", "-m", "alignment_core")
    assert launched(asks, processes)[2] == f"--num_processes={processes}"
    assert launched(("my-launcher",), processes) == ["my-launcher"]


@pytest.mark.slow
def test_what_torchrun_starts_does_not_import_from_the_work_folder(tmp_path: Path) -> None:
    (tmp_path / "alignment_core.py").write_text("raise SystemExit('imported from the work folder')")
    done = subprocess.run(
        [*launched(ALONE, 2), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "python -m alignment_core" in done.stdout
