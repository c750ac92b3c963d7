from pathlib import Path

import pytest
import torch

from alignment_core.errors import ModelError
from alignment_core.rewards.clip_score import load_clip_score
from alignment_core.rewards.pick_score import load_pick_score
from tests.alignment_core.rewards.clip import save_tiny_clip

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "a blue square"]
PROCESSOR_FILES = ("preprocessor_config.json", "vocab.json", "merges.txt", "tokenizer_config.json")


def images() -> torch.Tensor:
    return torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_the_score_is_the_models_own_scale_times_the_cosine(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path)
    reward = load_pick_score(tmp_path, None, None, CPU)
    scale = reward._clip.model.logit_scale.item()
    cosine = load_clip_score(tmp_path, None, CPU)(images(), PROMPTS)
    torch.testing.assert_close(reward(images(), PROMPTS), torch.tensor(scale).exp() * cosine)
    assert abs(scale) > 0.01, "a scale of 1 would prove nothing"


def test_tokenizer_and_preprocessor_may_be_published_elsewhere(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path / "model")
    together = load_pick_score(tmp_path / "model", None, None, CPU)(images(), PROMPTS)
    (tmp_path / "processor").mkdir()
    for name in PROCESSOR_FILES:
        (tmp_path / "model" / name).rename(tmp_path / "processor" / name)
    apart = load_pick_score(tmp_path / "model", tmp_path / "processor", None, CPU)(images(), PROMPTS)
    assert torch.equal(together, apart)
    with pytest.raises(ModelError, match=r"expected a CLIP tokenizer"):
        load_pick_score(tmp_path / "model", None, None, CPU)


def test_the_gradient_reaches_the_image(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path)
    reward, x = load_pick_score(tmp_path, None, None, CPU), images().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(x, PROMPTS).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
