from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from alignment_core.errors import ModelError
from alignment_core.rewards.aesthetic import load_aesthetic
from alignment_core.rewards.clip import load_clip, load_preprocessing
from alignment_core.rewards.convert import convert
from tests.alignment_core.rewards.by_hand import head, head_state
from tests.alignment_core.rewards.clip import save_tiny_clip

CPU = torch.device("cpu")
WIDTH = 24  # of the tiny CLIP's embeddings


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    save_tiny_clip(path)
    return path


def images() -> torch.Tensor:
    return torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_the_score_is_the_published_layers_on_the_unit_embedding(clip: Path, tmp_path: Path) -> None:
    state = head_state(WIDTH)
    torch.save(state, tmp_path / "linearMSE.pth")
    convert("aesthetic", tmp_path / "linearMSE.pth", tmp_path / "head", None)
    scores = load_aesthetic(clip, None, tmp_path / "head", CPU)(images(), [""] * 4)
    model = load_clip(clip, None, CPU)
    embedding = model.embed_pixels(load_preprocessing(clip, model.image_size)(images()))
    assert ((embedding.norm(dim=-1) - 1).abs() > 0.1).all(), "unit embeddings would not tell if they were normalised"
    torch.testing.assert_close(scores.double(), head(state, F.normalize(embedding, dim=-1)), atol=1e-5, rtol=1e-5)


def test_the_gradient_reaches_the_image(clip: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.randn(1, WIDTH), "bias": torch.ones(1)}, tmp_path / "model.safetensors")
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(load_aesthetic(clip, None, tmp_path, CPU)(x, [""] * 4).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(1, WIDTH)}, "lacks 1 expected tensors, bias first"),
        (
            {"weight": torch.zeros(1, 768), "bias": torch.zeros(1)},
            r"weight has the shape \[1, 768\], expected \[1, 24\]",
        ),
        ({**head_state(WIDTH), "weight": torch.zeros(1, WIDTH), "bias": torch.zeros(1)}, "unknown tensors"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_with_its_file(
    clip: Path, tmp_path: Path, tensors: dict, message: str
) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=rf"model\.safetensors: .*{message}"):
        load_aesthetic(clip, None, tmp_path, CPU)


def test_a_pickled_head_is_not_read(clip: Path, tmp_path: Path) -> None:
    torch.save(head_state(WIDTH), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_aesthetic(clip, None, tmp_path, CPU)
