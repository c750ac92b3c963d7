"""A random network under ImageReward's published names goes through the converter and must score as its algebra does."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertTokenizer

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import MEAN, STD, Preprocessing
from alignment_core.rewards.convert import convert
from alignment_core.rewards.image_reward import ImageReward, load_image_reward
from tests.alignment_core.rewards.by_hand import BLIP, image_reward, image_reward_state

CPU = torch.device("cpu")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square")
PROMPTS = ["a red circle", "A BLUE square", "red"]


def save_tokenizer(folder: Path) -> None:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image-reward")
    save_tokenizer(path / "tokenizer")
    torch.save(image_reward_state(), path / "ImageReward.pt")
    convert("image_reward", path / "ImageReward.pt", path / "converted", path / "tokenizer", blip=BLIP)
    return path


@pytest.fixture(scope="module")
def reward(folder: Path) -> ImageReward:
    return load_image_reward(folder / "converted", CPU)


def images(height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))


def score_by_hand(folder: Path, pixels: Tensor, prompts: list[str]) -> Tensor:
    rows = [[2, *(WORDS.index(word) for word in prompt.lower().split()), 3] for prompt in prompts]
    rows = [row if len(row) <= 35 else [*row[:34], 3] for row in rows]
    ids = torch.tensor([row + [0] * (35 - len(row)) for row in rows])
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    return image_reward(state, pixels, ids, (ids != 0).long())


@pytest.mark.parametrize("size", [(16, 16), (20, 31), (8, 8)])
def test_the_score_is_that_of_the_published_network(folder: Path, reward: ImageReward, size: tuple[int, int]) -> None:
    scores = reward(images(*size), PROMPTS)
    expected = score_by_hand(folder, Preprocessing(16, 16, MEAN, STD)(images(*size)), PROMPTS)
    torch.testing.assert_close(scores.double(), expected, atol=5e-6, rtol=5e-6)
    assert scores.dtype == torch.float32
    assert scores.std() > 0.01, "a comparison of constants would prove nothing"


def test_a_prompt_is_cut_at_35_tokens(folder: Path, reward: ImageReward) -> None:
    long = " ".join(["red"] * 33)  # with [CLS] and [SEP] 35
    scores = reward(images(), [long, f"{long} blue circle", " ".join(["red"] * 32)])
    pixels = Preprocessing(16, 16, MEAN, STD)(images())
    expected = score_by_hand(folder, pixels, [long, f"{long} blue circle", " ".join(["red"] * 32)])
    torch.testing.assert_close(scores.double(), expected, atol=5e-6, rtol=5e-6)
    same = reward(images()[:1].repeat(3, 1, 1, 1), [long, f"{long} blue", " ".join(["red"] * 32)])
    assert same[0] == same[1]
    assert same[0] != same[2]


def test_the_prompt_is_read_both_ways(reward: ImageReward) -> None:
    # A decoder's causal mask would hide the rest of the prompt from [CLS].
    one = images()[:1].repeat(2, 1, 1, 1)
    scores = reward(one, ["red circle", "red square"])
    assert (scores[0] - scores[1]).abs() > 1e-3


def test_the_published_tokenizer_gives_cls_words_sep_and_padding(folder: Path) -> None:
    tokens = BertTokenizer.from_pretrained(folder / "converted")("a red circle", padding="max_length", max_length=8)
    assert tokens["input_ids"] == [2, 5, 6, 8, 3, 0, 0, 0]


def test_the_gradient_reaches_the_image_and_no_weight(reward: ImageReward) -> None:
    x = images(20, 20).requires_grad_()
    before = reward(x, PROMPTS)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    assert not any(parameter.requires_grad for parameter in reward._network.parameters())
    after = reward(
        (x + 1e-3 * gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)).detach().clamp(0, 1), PROMPTS
    )
    assert (after > before).all()


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in (folder / "converted").iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(folder: Path, tmp_path: Path, missing: str) -> None:
    (copy_of(folder, tmp_path / "copy") / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        load_image_reward(tmp_path / "copy", CPU)


def test_tensors_that_do_not_fit_are_refused_with_the_file(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path / "copy") / "model.safetensors"
    tensors = load_file(path)
    for change, message in (
        ({"head.weight": None}, "lacks 1 expected tensors, head.weight first"),
        ({"extra": torch.zeros(1)}, "holds 1 unknown tensors, extra first"),
        ({"head.bias": torch.zeros(2)}, r"head.bias has the shape \[2\], expected \[1\]"),
    ):
        save_file({name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}, path)
        with pytest.raises(ModelError, match=rf"model\.safetensors: {message}"):
            load_image_reward(tmp_path / "copy", CPU)


@pytest.mark.parametrize("change", [{"vision_heads": 0}, {"text_layers": "2"}, {"surprise": 1}])
def test_a_config_that_is_not_ours_is_refused(folder: Path, tmp_path: Path, change: dict) -> None:
    path = copy_of(folder, tmp_path / "copy") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=r"config\.json: not the config of a converted ImageReward"):
        load_image_reward(tmp_path / "copy", CPU)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path / "copy") / "vocab.txt"
    path.write_text("\n".join([*WORDS, *(f"word{index}" for index in range(20))]) + "\n")
    with pytest.raises(ModelError, match="the tokenizer has 30 tokens, the weights have 20"):
        load_image_reward(tmp_path / "copy", CPU)
