"""Every method with every reference and every timestep strategy: what is allowed runs, and what is not says why."""

import math
from pathlib import Path

import pytest

from alignment_core import align
from alignment_core.events import StepCompleted
from tests.alignment_core.test_alignment import of_type
from tests.alignment_core.test_online import METHODS, online_spec

PRESETS = ("paper", "seed", "adaptive")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["tailorpo", "tailorpo_g", "d3po", "dpok"])
def test_presets(name: str, preset: str, tiny_model: Path, tmp_path: Path) -> None:
    chosen = {"type": "preset", "name": preset}
    spec = online_spec(tiny_model, METHODS[name], reference=chosen, timesteps=chosen)
    steps = of_type(list(align(spec, tmp_path)), StepCompleted)
    assert all(math.isfinite(value) for event in steps for value in event.metrics.values())
    assert len(steps) == 6
