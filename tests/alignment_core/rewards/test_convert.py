import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from alignment_core.errors import ModelError
from alignment_core.rewards.convert import BLIP_L, CLIP_H, convert, main
from alignment_core.rewards.image_reward import ImageRewardNetwork
from alignment_core.rewards.key_maps import clip_from_open_clip, image_reward_from_blip
from tests.alignment_core.rewards.by_hand import (
    BLIP,
    WIDTH,
    clip_shape,
    head_state,
    image_reward_state,
    open_clip_state,
)
from tests.alignment_core.rewards.clip import save_tiny_tokenizer

OWNED = "owned"


class Exploit:
    """What a pickle can do: write a file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.path, OWNED))


def test_attention_is_split_into_queries_keys_and_values() -> None:
    state = open_clip_state(10)
    mapped = clip_from_open_clip(state)
    block = "text_model.encoder.layers.1.self_attn"
    for kind in ("weight", "bias"):
        rows = state[f"transformer.resblocks.1.attn.in_proj_{kind}"]
        parts = [mapped[f"{block}.{part}_proj.{kind}"] for part in "qkv"]
        assert [len(part) for part in parts] == [WIDTH] * 3
        assert torch.equal(torch.cat(parts), rows)


def test_projections_are_transposed() -> None:
    state = open_clip_state(10)
    mapped = clip_from_open_clip(state)
    assert torch.equal(mapped["visual_projection.weight"], state["visual.proj"].T)
    assert torch.equal(mapped["text_projection.weight"], state["text_projection"].T)


def test_what_imagereward_does_not_use_is_left_out() -> None:
    mapped = image_reward_from_blip(image_reward_state())
    assert not any("position_ids" in name or "_proj" in name for name in mapped)
    assert {name.split(".")[0] for name in mapped} == {"vision_model", "text_model", "head"}


def test_the_published_shapes_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        clip, blip = CLIPModel(CLIPConfig(**CLIP_H)), ImageRewardNetwork(BLIP_L)
    assert sum(parameter.numel() for parameter in clip.parameters()) == 986_109_441  # open_clip's ViT-H-14
    # BLIP's ViT-L/16 and BERT base with cross-attention: see the widths in section 3 of arXiv 2201.12086.
    assert blip.vision_model.embeddings.position_embedding.shape == (1, 197, 1024)
    assert blip.text_model.encoder.layer[0].crossattention.self.key.weight.shape == (768, 1024)
    assert [CLIP_H[tower]["num_hidden_layers"] for tower in ("text_config", "vision_config")] == [24, 32]
    assert [CLIP_H[tower]["hidden_act"] for tower in ("text_config", "vision_config")] == ["gelu", "gelu"]


def test_the_command_writes_safetensors_and_nothing_else(tmp_path: Path) -> None:
    torch.save(head_state(768), tmp_path / "linearMSE.pth")
    command = [sys.executable, "-m", "alignment_core.rewards.convert", "aesthetic", str(tmp_path / "linearMSE.pth")]
    done = subprocess.run([*command, "--out", str(tmp_path / "head")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "head").iterdir()] == ["model.safetensors"]
    shapes = {name: list(tensor.shape) for name, tensor in load_file(tmp_path / "head" / "model.safetensors").items()}
    assert shapes == {"weight": [1, 768], "bias": [1]}


def test_a_folder_that_exists_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(head_state(768), tmp_path / "linearMSE.pth")
    (tmp_path / "head").mkdir()
    assert main(["aesthetic", str(tmp_path / "linearMSE.pth"), "--out", str(tmp_path / "head")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'head'} exists already; expected a new folder\n"
    assert list((tmp_path / "head").iterdir()) == []


@pytest.mark.parametrize("name", ["hpsv2", "image_reward", "aesthetic"])
def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path, name: str) -> None:
    save_tiny_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "vocab.txt").write_text("[PAD]\n")
    torch.save({"state_dict": Exploit(tmp_path / "proof")}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match=r"bad\.pt: expected a file of tensors"):
        convert(name, tmp_path / "bad.pt", tmp_path / "out", tmp_path / "tokenizer")  # type: ignore[arg-type]
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Exploit(tmp_path / "proof")))
    assert (tmp_path / "proof").read_text() == OWNED, "the exploit works where nobody is careful"


def hps_file(folder: Path, change: dict[str, Tensor | None]) -> Path:
    vocab = save_tiny_tokenizer(folder / "tokenizer")
    state = {name: tensor for name, tensor in {**open_clip_state(len(vocab)), **change}.items() if tensor is not None}
    torch.save({"state_dict": state}, folder / "HPS.pt")
    return folder / "HPS.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.proj": None}, r"lacks 1 expected tensors, visual_projection\.weight first"),
        ({"visual.head.weight": torch.zeros(1)}, r"holds visual\.head\.weight, which open_clip's ViT does not have"),
        ({"transformer.resblocks.0.ls_1.gamma": torch.zeros(1)}, r"holds transformer\.resblocks\.0\.ls_1\.gamma"),
        (
            {"transformer.resblocks.2.ln_1.weight": torch.zeros(WIDTH)},
            r"holds 1 unknown tensors, text_model\.encoder\.layers\.2\.layer_norm1\.weight first",
        ),
        ({"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(95)}, "has 95 rows"),
        ({"text_projection": torch.zeros(24, WIDTH)}, r"text_projection\.weight has the shape \[32, 24\]"),
    ],
)
def test_another_network_is_refused_with_the_files_name(tmp_path: Path, change: dict, message: str) -> None:
    file = hps_file(tmp_path, change)
    shape = clip_shape(save_tiny_tokenizer(tmp_path / "tokenizer"))
    with pytest.raises(ModelError, match=rf"HPS\.pt: .*{message}"):
        convert("hpsv2", file, tmp_path / "out", tmp_path / "tokenizer", clip=shape)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["HPS.pt", "tokenizer"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp.layers.0.bias": None}, r"lacks layers\.0\.bias"),
        (
            {"blip.visual_encoder.cls_token": None},
            r"lacks 1 expected tensors, vision_model\.embeddings\.class_embedding",
        ),
        ({"blip.text_decoder.weight": torch.zeros(1)}, r"unknown tensors, text_model\.text_decoder\.weight"),
        ({"clip.weight": torch.zeros(1)}, r"holds clip\.weight, which ImageReward does not have"),
    ],
)
def test_another_imagereward_is_refused_with_the_files_name(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    state = {name: tensor for name, tensor in {**image_reward_state(), **change}.items() if tensor is not None}
    torch.save(state, tmp_path / "IR.pt")
    with pytest.raises(ModelError, match=rf"IR\.pt: .*{message}"):
        convert("image_reward", tmp_path / "IR.pt", tmp_path / "out", tmp_path, blip=BLIP)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {"layers.0.weight": [torch.zeros(1)]}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"x\.pth: expected a dictionary of tensors"):
        convert("aesthetic", tmp_path / "x.pth", tmp_path / "out", None)


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1", "image_reward"])
def test_a_tokenizer_is_asked_for(tmp_path: Path, name: str) -> None:
    torch.save({}, tmp_path / "x.pt")
    for tokenizer in (None, tmp_path):
        with pytest.raises(ModelError, match=rf"{name} needs --tokenizer FOLDER"):
            convert(name, tmp_path / "x.pt", tmp_path / "out", tokenizer)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pth: no such file"):
        convert("aesthetic", tmp_path / "nowhere.pth", tmp_path / "out", None)
