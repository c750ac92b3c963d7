"""What a process of one command imports, and what it leaves out: the price of every job's start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.assets import ASSETS

LARGE = ("torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "scipy", "numpy", "pyarrow")
UNUSED = ("bitsandbytes", "scipy")
SAY_IMPORTED = "import json, sys; print(json.dumps([name for name, one in sys.modules.items() if one is not None]))"


def imported_by(program: str) -> set[str]:
    """The modules that a new process has once it ran the program."""
    command = [sys.executable, "-c", f"{program}\n{SAY_IMPORTED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return set(json.loads(done.stdout.splitlines()[-1]))


def commanded(*arguments: object) -> str:
    """`python -m alignment_core ...`, in a program that goes on after it."""
    return (
        f"import sys; sys.argv[1:] = {[str(one) for one in arguments]}; import alignment_core.__main__ as m; m.main()"
    )


def test_the_command_itself_imports_no_large_library() -> None:
    assert not imported_by("import alignment_core.__main__") & set(LARGE)


def test_preference_data_is_checked_without_torch(tmp_path: Path) -> None:
    found = imported_by(commanded("check", tmp_path / "nothing.parquet"))
    assert "pyarrow" in found
    assert not found & set(LARGE) - {"pyarrow", "numpy"}


@pytest.mark.slow
def test_what_no_run_uses_is_not_imported_with_what_reads_models_and_trains() -> None:
    model = json.dumps({"type": "local", "path": str(ASSETS / "model")})
    found = imported_by(f"{commanded('model', model)}\nimport alignment_core.alignment")
    assert {"torch", "diffusers", "peft"} <= found
    assert not found & set(UNUSED)


@pytest.mark.slow
def test_an_optimiser_of_8_bits_is_had_where_the_rest_does_without_its_library() -> None:
    program = """
from alignment_core.lean_imports import lean_imports
with lean_imports():
    import alignment_core.alignment
import torch
from alignment_core.load.optimizer import new_optimizer
from alignment_core.spec.training import TrainingSpec
weight = torch.nn.Parameter(torch.ones(8192))
one = new_optimizer(TrainingSpec(optimizer="adamw_8bit"), [{"params": [weight]}], learning_rate=0.1, is_fused=False)
weight.grad = torch.ones(8192)
one.step()
assert (weight < 1).all()
"""
    found = imported_by(program)
    assert "bitsandbytes" in found
    assert "scipy" not in found
