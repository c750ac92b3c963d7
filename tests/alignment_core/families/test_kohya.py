"""The LoRA under kohya's names is the same update of the same layers as the file that diffusers reads."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from alignment_core.actors.build import lora_actors
from alignment_core.actors.reference_weights import ADAPTER
from alignment_core.families.sd_kohya import kohya_layers
from alignment_core.families.sd_weights import KOHYA_FILE, LORA_FILE
from alignment_core.load.model import load_model
from alignment_core.safetensors_files import write_safetensors
from alignment_core.spec import LocalSource

RANK, ALPHA = 8, 4.0  # a reader that takes alpha for the rank doubles the update
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
REST = (
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "time_emb_proj"),
    *("downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out", "linear_1", "linear_2"),
)
EVERY_KIND = (*ATTENTION, *REST)


@pytest.fixture(scope="module", params=[ATTENTION, EVERY_KIND], ids=["attention", "every_kind"])
def saved(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA whose A and B are both random."""
    source, cpu, wide = LocalSource(path=str(tiny_model)), torch.device("cpu"), torch.float32
    family = load_model(source, device=cpu, frozen_dtype=wide, denoiser_dtype=wide)
    actors = lora_actors(
        family,
        family.denoiser,
        rank=RANK,
        alpha=ALPHA,
        target_modules=request.param,
        seed=0,
        autocast=lambda: torch.no_grad(),
    )
    for number, parameter in enumerate(actors.trainable().values()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.copy_(noise)
    folder = tmp_path_factory.mktemp("saved")
    family.save_policy(actors, folder)
    return folder


def product(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """B A as one matrix, or as one kernel."""
    return (up.flatten(1).double() @ down.flatten(1).double()).reshape(len(up), *down.shape[1:])


def updates_by_hand(folder: Path) -> dict[str, torch.Tensor]:
    """What A1111 and ComfyUI compute of the kohya file: up @ down * alpha / rank, by the name without its prefix."""
    file = load_file(folder / KOHYA_FILE)
    found = {}
    for name in {key.split(".", 1)[0] for key in file}:
        down, up, alpha = file[f"{name}.lora_down.weight"], file[f"{name}.lora_up.weight"], file[f"{name}.alpha"]
        found[name.removeprefix("lora_unet_")] = product(down, up) * alpha.item() / len(down)
    return found


def updates_in_diffusers(model: Path, weights: Path) -> dict[str, torch.Tensor]:
    """What diffusers' loader adds to each layer, by the layer's name."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True, local_files_only=True)
    pipeline.load_lora_weights(str(weights.parent), weight_name=weights.name, adapter_name="read")
    return {
        name: module.get_delta_weight("read").double()
        for name, module in pipeline.unet.named_modules()
        if hasattr(module, "get_delta_weight") and "read" in module.lora_A
    }


@pytest.mark.filterwarnings("ignore:.*peft:UserWarning")
def test_diffusers_adds_the_same_to_every_layer_from_either_file(saved: Path, tiny_model: Path) -> None:
    ours, kohya = (updates_in_diffusers(tiny_model, saved / name) for name in (LORA_FILE, KOHYA_FILE))
    assert ours.keys() == kohya.keys()
    assert len(ours) == len(load_file(saved / LORA_FILE)) // 2 == len(load_file(saved / KOHYA_FILE)) // 3
    for name, update in ours.items():
        assert update.abs().max() > 0.1
        assert torch.equal(update, kohya[name]), name


def test_each_update_by_hand_is_up_times_down_times_alpha_over_rank(saved: Path) -> None:
    ours, by_hand = load_file(saved / LORA_FILE), updates_by_hand(saved)
    modules = [key.removesuffix(".lora_A.weight") for key in ours if key.endswith(".lora_A.weight")]
    assert sorted(module.removeprefix("unet.").replace(".", "_") for module in modules) == sorted(by_hand)
    for module in modules:
        update = product(ours[f"{module}.lora_A.weight"], ours[f"{module}.lora_B.weight"]) * ALPHA / RANK
        assert torch.allclose(by_hand[module.removeprefix("unet.").replace(".", "_")], update, rtol=0, atol=1e-12)


def test_convolutions_have_their_kernel_in_the_lower_half(saved: Path) -> None:
    for key, value in load_file(saved / KOHYA_FILE).items():
        if key.endswith(".alpha"):
            assert value.shape == ()
            assert value.item() == ALPHA
        elif value.ndim == 4:
            assert value.shape[0 if "lora_down" in key else 1] == RANK
            assert "lora_down" in key or value.shape[2:] == (1, 1)


def test_the_header_says_rank_and_alpha_as_kohyas_scripts_do(saved: Path) -> None:
    with safe_open(saved / KOHYA_FILE, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"], metadata["ss_v2"]) == ("8", "4.0", "False")


def test_a_folder_loads_as_before_with_both_files_in_it(saved: Path, tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True, local_files_only=True)
    pipeline.load_lora_weights(str(saved))
    assert pipeline.unet.peft_config["default_0"].lora_alpha == ALPHA
    loaded = [name for name, _ in pipeline.unet.named_parameters() if ".lora_" in name]
    assert len(loaded) == len(load_file(saved / LORA_FILE))


def test_equal_tensors_and_entries_are_equal_bytes_in_any_order(tmp_path: Path) -> None:
    entries = {f"key {number} é\n": str(number) for number in range(12)}
    tensors = {name: torch.ones(2) for name in "abc"}
    files = []
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        write_safetensors(path, dict(sorted(tensors.items(), reverse=number % 2 == 0)), entries)
        files.append(path.read_bytes())
    assert len(set(files)) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert file.metadata() == entries
    assert list(json.loads(files[0][8 : 8 + struct.unpack("<Q", files[0][:8])[0]])["__metadata__"]) == sorted(entries)


# --- the names that other tools look for -----------------------------------------------------------------------------


def compvis_name(name: str) -> str:
    """A1111's way from kohya's name to a module of the original U-Net (`convert_diffusers_name_to_compvis`).

    https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/extensions-builtin/Lora/networks.py
    """
    resnet = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"} | {
        "conv_shortcut": "skip_connection"
    }

    def block(folder: str, number: int, kind: str, rest: str) -> str:
        return f"{folder}.{number}.{1 if kind == 'attentions' else 0}.{resnet.get(rest, rest)}"

    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"conv_in", lambda m: "input_blocks.0.0"),
        (r"conv_out", lambda m: "out.2"),
        (r"time_embedding_linear_(\d)", lambda m: f"time_embed.{int(m[1]) * 2 - 2}"),
        (
            r"down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
            lambda m: block("input_blocks", 1 + int(m[1]) * 3 + int(m[3]), m[2], m[4]),
        ),
        (
            r"mid_block_(attentions|resnets)_(\d+)_(.+)",
            lambda m: f"middle_block.{1 if m[1] == 'attentions' else int(m[2]) * 2}.{resnet.get(m[3], m[3])}",
        ),
        (
            r"up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
            lambda m: block("output_blocks", int(m[1]) * 3 + int(m[3]), m[2], m[4]),
        ),
        (r"down_blocks_(\d+)_downsamplers_0_conv", lambda m: f"input_blocks.{3 + int(m[1]) * 3}.0.op"),
        (
            r"up_blocks_(\d+)_upsamplers_0_conv",
            lambda m: f"output_blocks.{2 + int(m[1]) * 3}.{2 if int(m[1]) > 0 else 1}.conv",
        ),
    ]
    for pattern, target in rules:
        if found := re.fullmatch(pattern, name):
            return target(found).replace(".", "_")
    raise AssertionError(f"A1111 knows no {name}")


def original_modules() -> set[str]:
    """The linear and convolutional modules of SD 1.x's original U-Net, built by its own constructor's rule.

    `UNetModel` with channel_mult (1, 2, 4, 4), num_res_blocks 2, attention in all but the innermost level:
    https://github.com/CompVis/stable-diffusion/blob/main/ldm/modules/diffusionmodules/openaimodel.py
    """
    found = {"time_embed.0", "time_embed.2", "input_blocks.0.0", "out.2"}

    def resnet(place: str, *, changes_width: bool) -> None:
        found.update(f"{place}.{part}" for part in ("in_layers.2", "out_layers.3", "emb_layers.1"))
        found.update([f"{place}.skip_connection"] if changes_width else [])

    def transformer(place: str) -> None:
        inner = [f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
        blocks = [f"transformer_blocks.0.{part}" for part in (*inner, "ff.net.0.proj", "ff.net.2")]
        found.update(f"{place}.{part}" for part in ("proj_in", "proj_out", *blocks))

    for level in range(4):
        for layer in range(2):
            number = 1 + level * 3 + layer
            resnet(f"input_blocks.{number}.0", changes_width=layer == 0 and level in (1, 2))
            if level < 3:
                transformer(f"input_blocks.{number}.1")
        if level < 3:
            found.add(f"input_blocks.{3 + level * 3}.0.op")
    for place in ("middle_block.0", "middle_block.2"):
        resnet(place, changes_width=False)
    transformer("middle_block.1")
    for level in range(4):
        for layer in range(3):
            number = level * 3 + layer
            resnet(f"output_blocks.{number}.0", changes_width=True)
            if level > 0:
                transformer(f"output_blocks.{number}.1")
        if level < 3:
            found.add(f"output_blocks.{2 + level * 3}.{2 if level > 0 else 1}.conv")
    return {name.replace(".", "_") for name in found}


def test_every_name_is_a_module_of_the_original_unet_under_a1111s_rule() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(  # SD 1.x's shape with narrower layers
            block_out_channels=(32, 64, 128, 128), cross_attention_dim=768, attention_head_dim=8
        )
        unet.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=list(EVERY_KIND)), adapter_name=ADAPTER)
    layers = kohya_layers(get_peft_model_state_dict(unet, adapter_name=ADAPTER), alpha=2.0)
    names = {key.split(".", 1)[0].removeprefix("lora_unet_") for key in layers}
    assert len(names) == len(layers) // 3 == len(original_modules())
    assert {compvis_name(name) for name in names} == original_modules()
    attention = {name for name in names if re.search(r"attn\d_to_", name)}
    assert len(attention) == 128
