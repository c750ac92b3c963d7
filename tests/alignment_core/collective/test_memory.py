"""The estimate of memory of two processes against what each of them held, in shares and whole."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from alignment_core.costs.judges import CLIP_H, CLIP_L
from benchmarks.collective_memory import SETTINGS, row, spec_in_two
from benchmarks.memory import estimated, on_a_card

DOCS = Path(__file__).parents[3] / "docs"
BLOCKS_ALONE = {"sd lora fsdp2": 0.12}  # little else is held than blocks, of which the largest is counted
ROWS = {one["setting"]: one for one in json.loads((DOCS / "collective_memory.json").read_text())["results"]}


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["sd full fsdp2", "sd full copied", "sd full ddp"])
def test_each_of_two_processes_holds_what_was_estimated(setting: str, tmp_path: Path) -> None:
    found = row(setting, tmp_path / "both")
    assert found["ratio"] == pytest.approx(1, abs=0.1)
    assert found["ratio_on_a_cpu"] == pytest.approx(1, abs=0.1)
    assert found["measured_gib_of_the_other"] == pytest.approx(found["measured_gib"], rel=0.1)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_estimate_is_within_a_tenth_of_every_setting_that_was_measured(setting: str) -> None:
    spec = spec_in_two(setting, Path("pairs.parquet").absolute())
    found = estimated(on_a_card(spec), SETTINGS[setting][0])
    assert found.peak_gib == pytest.approx(ROWS[setting]["measured_gib"], rel=BLOCKS_ALONE.get(setting, 0.1))
    assert found.peak_gib == pytest.approx(ROWS[setting]["estimated_gib"], rel=0.01), "what the page shows"


VISION_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
TEXT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


@pytest.mark.parametrize(
    ("text", "vision", "projected", "counted"),
    [(TEXT_H, VISION_H, 1024, CLIP_H), (TEXT_L, VISION_L, 768, CLIP_L)],
    ids=["CLIP-H", "CLIP-L"],
)
def test_the_judges_have_as_many_weights_as_are_counted(
    text: dict[str, int], vision: dict[str, int], projected: int, counted: int
) -> None:
    config = CLIPConfig(
        text_config=text, vision_config={**vision, "patch_size": 14, "image_size": 224}, projection_dim=projected
    )
    with torch.device("meta"):
        network = CLIPModel(config)
    assert sum(one.numel() for one in network.parameters()) == counted
