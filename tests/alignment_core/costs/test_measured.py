"""The estimate of memory against runs: every tensor that lives is counted while the demo's models train."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import GRID, Setting, estimated, on_a_card, rows
from demo.assets import ASSETS

DOCS = Path(__file__).parents[3] / "docs"
ROWS = json.loads((DOCS / "memory.json").read_text())["results"]


def assert_estimated(setting: Setting, row: dict[str, Any]) -> None:
    """Within a tenth of what lived on a card, and of all that lived."""
    spec, whole = setting.spec(ASSETS / "pairs.parquet"), row["measured_gib"] + row.get("left_on_host_gib", 0)
    assert estimated(spec, setting.model).peak_gib == pytest.approx(whole, rel=0.1)
    if not setting.is_online:
        assert estimated(on_a_card(spec), setting.model).peak_gib == pytest.approx(row["measured_gib"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        Setting("diffusion_dpo", "sd", "full", 16),
        Setting("diffusion_dpo", "sdxl", "lora", 4, gradient_checkpointing=True),
        Setting("diffusion_dpo", "sd3", "lora", 16, "bf16"),
        Setting("tailorpo", "sd", "lora", 4),
        Setting("tailorpo_g", "sd", "full", 4),
        Setting("tailorpo_g", "sd3", "lora", 4),
        Setting("tailorpo_g_decoder", "sd", "lora", 4),
    ],
    ids=lambda setting: " ".join(setting.words),
)
def test_a_run_allocates_what_was_estimated(setting: Setting) -> None:
    (row,) = rows([setting])
    assert_estimated(setting, row)
    assert row.get("left_on_host_gib", 1) > 0


@pytest.mark.parametrize("setting", GRID, ids=lambda setting: " ".join(setting.words))
def test_the_estimate_is_within_a_tenth_of_every_setting_that_was_measured(setting: Setting) -> None:
    (row,) = [row for row in ROWS if setting.is_of(row)]
    assert_estimated(setting, row)
    spec = setting.spec(ASSETS / "pairs.parquet")
    found = estimated(spec if setting.is_online else on_a_card(spec), setting.model)
    assert found.peak_gib == pytest.approx(row["estimated_gib"], rel=0.01), "what the page shows"
