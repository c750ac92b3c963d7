"""What a diffusers folder says of its model without being loaded."""

import json
import struct
from pathlib import Path

import pytest

from alignment_core.model_files import read_model_files, stamp_of
from alignment_core.spec.families import FAMILIES, FamilyName

DEMO = Path(__file__).parents[2] / "demo"
SD = DEMO / "assets" / "model"
TINY: dict[FamilyName, Path] = {"sd": SD, "sdxl": DEMO / "families/assets/sdxl", "sd3": DEMO / "families/assets/sd3"}


@pytest.mark.parametrize("family", TINY)
def test_class_size_prediction_and_layers_of_each_family_are_read(family: FamilyName) -> None:
    report, facts = read_model_files(TINY[family]), FAMILIES[family]
    assert report.family == family
    assert report.resolution == 32
    assert report.prediction_type == ("velocity" if facts.is_flow else "epsilon")
    assert set(facts.lora_targets) - {"to_out.0"} <= {name for name in report.targets if report.has_layer(name)}
    assert (report.problem is None) == facts.is_served


def test_the_layers_and_parameters_are_those_of_the_denoiser() -> None:
    from diffusers import UNet2DConditionModel
    from torch import nn

    unet = UNet2DConditionModel.from_pretrained(SD / "unet")
    report = read_model_files(SD)
    assert report.layers is not None
    assert report.layers.keys() == {
        name for name, one in unet.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)
    }
    assert report.num_parameters == sum(one.numel() for one in unet.parameters())


@pytest.mark.parametrize("targets", [("to_k", "to_q", "to_v", "to_out.0"), ("conv1", "proj_in", "to_q")])
def test_an_adapter_has_as_many_parameters_as_peft_gives_it(targets: tuple[str, ...]) -> None:
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet = UNet2DConditionModel.from_pretrained(SD / "unet").requires_grad_(False)
    unet.add_adapter(LoraConfig(r=3, target_modules=list(targets)))
    trained = sum(one.numel() for one in unet.parameters() if one.requires_grad)
    assert read_model_files(SD).num_adapter_parameters(targets, rank=3) == trained


@pytest.mark.parametrize(
    "content", [b"", b"\x01", struct.pack("<Q", 2**60), struct.pack("<Q", 5) + b"{nope", b"x" * 100]
)
def test_what_is_no_model_says_nothing_and_breaks_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    (tmp_path / "unet" / "config.json").write_bytes(content)
    assert read_model_files(tmp_path).layers is None
    assert read_model_files(tmp_path / "nowhere").layers is None
    assert stamp_of(tmp_path) is None


def test_the_stamp_changes_with_a_config_and_not_with_a_copy(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "model_index.json").write_text("{}")
        (tmp_path / name / "unet" / "config.json").write_text(json.dumps({"in_channels": 4}))
    before = stamp_of(tmp_path / "one")
    assert before == stamp_of(tmp_path / "other")
    (tmp_path / "one" / "unet" / "config.json").write_text(json.dumps({"in_channels": 9}))
    assert stamp_of(tmp_path / "one") != before
