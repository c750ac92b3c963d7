"""A random network under open_clip's names goes through the converter and must score as open_clip's algebra does."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import MEAN, STD
from alignment_core.rewards.convert import convert
from alignment_core.rewards.hps import HumanPreferenceScore, letterbox, load_hps
from tests.alignment_core.rewards.by_hand import clip_shape, open_clip_image, open_clip_state, open_clip_text
from tests.alignment_core.rewards.clip import save_tiny_tokenizer

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "a blue square", "a blue blue circle"]


def converted(folder: Path, hidden_act: str = "gelu", name: str = "hpsv2.1") -> dict[str, Tensor]:
    """Convert a random published file into `folder / "hps"`; returns its tensors."""
    vocab = save_tiny_tokenizer(folder / "tokenizer")
    state = open_clip_state(len(vocab))
    torch.save({"epoch": 3, "state_dict": state}, folder / "HPS.pt")
    shape = clip_shape(vocab, hidden_act)
    convert(name, folder / "HPS.pt", folder / "hps", folder / "tokenizer", clip=shape)  # type: ignore[arg-type]
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hps")
    converted(path)
    return path


@pytest.fixture(scope="module")
def reward(folder: Path) -> HumanPreferenceScore:
    return load_hps(folder / "hps", "hpsv2.1", None, CPU)


def images(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(seed))


def score_by_hand(folder: Path, pixels: Tensor) -> Tensor:
    state = torch.load(folder / "HPS.pt", weights_only=True)["state_dict"]
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(PROMPTS, padding=True, return_tensors="pt")
    ids = tokens["input_ids"]
    assert isinstance(ids, Tensor)
    return F.cosine_similarity(open_clip_image(state, pixels), open_clip_text(state, ids), dim=-1)


def test_the_score_is_the_cosine_of_open_clips_network(folder: Path, reward: HumanPreferenceScore) -> None:
    scores = reward(images(16, 16), PROMPTS)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = score_by_hand(folder, (images(16, 16) - mean) / std)
    torch.testing.assert_close(scores.double(), expected, atol=2e-6, rtol=0)
    assert scores.dtype == torch.float32
    assert scores.std() > 0.01, "a comparison of constants would prove nothing"


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (7, 16), (33, 100)])
def test_other_sizes_go_through_the_letterbox(
    folder: Path, reward: HumanPreferenceScore, size: tuple[int, int]
) -> None:
    expected = score_by_hand(folder, letterbox(images(*size), 16))
    torch.testing.assert_close(reward(images(*size), PROMPTS).double(), expected, atol=2e-6, rtol=0)


def test_nothing_is_cropped_and_the_border_is_normalised_black() -> None:
    white = torch.ones(1, 3, 40, 64)
    pixels = letterbox(white, 16) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    expected = torch.zeros(16, 16)
    expected[3:13] = 1  # 40 x 64 becomes 10 x 16, centred
    torch.testing.assert_close(pixels, expected.expand(1, 3, 16, 16), atol=1e-5, rtol=0)


def test_an_odd_border_has_its_extra_row_below() -> None:
    pixels = letterbox(torch.ones(1, 3, 13, 16), 16)[0, 0]
    assert [bool(row.mean() > 0) for row in pixels] == [False] + [True] * 13 + [False] * 2


def test_overshoots_of_the_resize_stay_as_in_the_published_code() -> None:
    edges = torch.zeros(1, 3, 8, 8)
    edges[..., 4:] = 1
    pixels = letterbox(edges, 16) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert pixels.max() > 1.01
    assert pixels.min() < -0.01


def test_the_gradient_reaches_the_image_and_raises_the_score(reward: HumanPreferenceScore) -> None:
    x = images(20, 28).requires_grad_()
    before = reward(x, PROMPTS)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    assert (gradient != 0).any(dim=1).all(), "every pixel counts: nothing is cropped"
    after = reward((x + 0.02 * gradient / gradient.abs().amax()).detach().clamp(0, 1), PROMPTS)
    assert (after > before).all()


def test_half_precision_weights_are_read_in_float32(tmp_path: Path) -> None:
    vocab = save_tiny_tokenizer(tmp_path / "tokenizer")
    state = {name: tensor.half() for name, tensor in open_clip_state(len(vocab)).items()}
    torch.save({"state_dict": state}, tmp_path / "HPS.pt")
    convert("hpsv2", tmp_path / "HPS.pt", tmp_path / "hps", tmp_path / "tokenizer", clip=clip_shape(vocab))
    reward = load_hps(tmp_path / "hps", "hpsv2", None, CPU)
    expected = score_by_hand(tmp_path, letterbox(images(16, 16), 16))
    torch.testing.assert_close(reward(images(16, 16), PROMPTS).double(), expected, atol=2e-6, rtol=0)


def test_quick_gelu_is_refused_because_it_loads_and_is_wrong(tmp_path: Path) -> None:
    converted(tmp_path, hidden_act="quick_gelu")
    with pytest.raises(ModelError, match=r'config\.json: expected "hidden_act": "gelu", found \'quick_gelu\''):
        load_hps(tmp_path / "hps", "hpsv2.1", None, CPU)


def test_weights_of_the_other_version_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: these are the weights of hpsv2\.1, expected hpsv2"):
        load_hps(folder / "hps", "hpsv2", None, CPU)


def test_the_converted_folder_is_a_clip_that_says_its_activation(folder: Path) -> None:
    config = json.loads((folder / "hps" / "config.json").read_text())
    assert config["model_type"] == "clip"
    assert [config[tower]["hidden_act"] for tower in ("text_config", "vision_config")] == ["gelu", "gelu"]
