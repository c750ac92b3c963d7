"""The tiny CLIP is random: what is tested is the path from files and pixels to the cosine, not CLIP's taste."""

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import Preprocessing
from alignment_core.rewards.clip_score import ClipScore, load_clip_score
from tests.alignment_core.rewards.clip import save_tiny_clip

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "a blue square"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    save_tiny_clip(path)
    return path


@pytest.fixture(scope="module")
def reward(folder: Path) -> ClipScore:
    return load_clip_score(folder, None, CPU)


def photographs(height: int, width: int, num: int = 2, seed: int = 0) -> Tensor:
    """Smooth random images of 8-bit values, so that PIL and tensors start from the same pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 6, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (images * 255).round() / 255


def as_pictures(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(np.rint(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8)) for image in images]


def score_by_hand(folder: Path, images: Tensor, prompts: list[str]) -> Tensor:
    """As transformers' documentation does it: its own image processor on PIL images, its tokenizer, a dot product."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor(images=as_pictures(images), return_tensors="pt")
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        image, text = model.get_image_features(**pixels), model.get_text_features(**tokens)
    image, text = (cast(Tensor, cast(BaseModelOutputWithPooling, output).pooler_output) for output in (image, text))
    return (image * text).sum(1) / (image.norm(dim=1) * text.norm(dim=1))


SIZES = [(64, 64), (32, 32), (16, 16), (8, 8), (40, 64), (67, 45)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_are_those_of_transformers_own_processor(folder: Path, height: int, width: int) -> None:
    # PIL rounds to 8 bits after each of its two passes: one level, 1/255, is all that may differ, on noise too. (Where
    # the first pass overshoots [0, 255] PIL cuts it before the second; noise from 0.2 to 0.8 never does.)
    noise = 0.2 + 0.6 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    images = (noise * 255).round() / 255
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    expected = processor(images=as_pictures(images), return_tensors="pt")["pixel_values"]
    std = torch.tensor(STD).view(3, 1, 1)
    assert ((Preprocessing(16, 16, MEAN, STD)(images) - expected) * std * 255).abs().max() < 1.05


@pytest.mark.parametrize("size", [8, 64])
def test_hard_edges_do_not_overshoot(size: int) -> None:
    edges = torch.zeros(1, 3, size, size)
    edges[..., size // 4 : size // 2 + 1] = 1
    pixels = Preprocessing(16, 16, MEAN, STD)(edges) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(
        3, 1, 1
    )
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_score_is_that_of_transformers_own_pipeline(
    folder: Path, reward: ClipScore, height: int, width: int
) -> None:
    # That one level moves these cosines by up to 2.4e-4 (measured over five seeds and all sizes).
    images = photographs(height, width)
    torch.testing.assert_close(reward(images, PROMPTS), score_by_hand(folder, images, PROMPTS), atol=5e-4, rtol=0)


def test_without_a_resize_the_score_is_exact(folder: Path, reward: ClipScore) -> None:
    images = photographs(16, 16, seed=3)
    torch.testing.assert_close(reward(images, PROMPTS), score_by_hand(folder, images, PROMPTS), atol=1e-5, rtol=0)


def test_a_larger_resize_is_cropped_in_the_middle(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path, size=21)
    reward = load_clip_score(tmp_path, None, CPU)
    images = photographs(48, 33)
    torch.testing.assert_close(reward(images, PROMPTS), score_by_hand(tmp_path, images, PROMPTS), atol=5e-4, rtol=0)


def test_scores_are_float32_cosines_that_depend_on_image_and_prompt(reward: ClipScore) -> None:
    images = photographs(32, 32)
    straight, crossed = reward(images, PROMPTS), reward(images, PROMPTS[::-1])
    assert straight.dtype == torch.float32
    assert straight.shape == (2,)
    assert (straight.abs() <= 1).all()
    assert ((straight - crossed).abs() > 1e-3).all()
    assert (straight[0] - straight[1]).abs() > 1e-3


def test_a_score_does_not_depend_on_its_batch(reward: ClipScore) -> None:
    images = photographs(32, 32)
    together = reward(images, ["a red circle", "a red circle " * 20])
    torch.testing.assert_close(together[:1], reward(images[:1], ["a red circle"]), atol=1e-6, rtol=0)


def test_a_prompt_is_cut_at_77_tokens(reward: ClipScore) -> None:
    images = photographs(32, 32)
    seventy_five = " ".join(["red"] * 75)  # with the start and the end token 77
    scores = reward(images[:1].repeat(2, 1, 1, 1), [seventy_five, f"{seventy_five} blue blue blue"])
    assert scores[0] == scores[1]
    shorter = reward(images[:1], [" ".join(["red"] * 74 + ["blue"])])
    assert shorter[0] != scores[0]


def test_the_gradient_reaches_the_image_and_no_weight(folder: Path) -> None:
    reward = load_clip_score(folder, None, CPU)
    images = photographs(32, 32).requires_grad_()
    reward(images, PROMPTS).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad != 0).any()
    assert not any(parameter.requires_grad for parameter in reward._clip.model.parameters())


def test_climbing_the_gradient_raises_the_score(reward: ClipScore) -> None:
    images = photographs(32, 32).requires_grad_()
    before = reward(images, PROMPTS)
    (gradient,) = torch.autograd.grad(before.sum(), images)
    with torch.no_grad():
        after = reward((images + 0.02 * gradient / gradient.abs().amax()).clamp(0, 1), PROMPTS)
    assert (after > before).all()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("vocab.json", "vocab.json"),
        ("model.safetensors", "model.safetensors"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path, missing: str, message: str) -> None:
    save_tiny_clip(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=message):
        load_clip_score(tmp_path, None, CPU)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path)
    state = CLIPModel.from_pretrained(tmp_path).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_clip_score(tmp_path, None, CPU)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_tiny_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    with pytest.raises(ModelError, match='"model_type": "clip"'):
        load_clip_score(tmp_path, None, CPU)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_tiny_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"visual_projection\.weight"):
        load_clip_score(tmp_path, None, CPU)


def test_weights_of_another_shape_cut_off_or_with_too_few_embeddings_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_tiny_clip(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    state = load_file(weights)
    name = "text_model.embeddings.token_embedding.weight"
    fewer = len(state[name]) - 1
    save_file({**state, name: state[name][:fewer].clone()}, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"token_embedding\.weight has the shape \[{fewer}, 32\], expected"):
        load_clip_score(tmp_path, None, CPU)
    told = json.loads(config.read_text())
    told["text_config"]["vocab_size"] = fewer
    config.write_text(json.dumps(told))
    with pytest.raises(ModelError, match=f"the tokenizer has a token {fewer}, and the text model has {fewer}"):
        load_clip_score(tmp_path, None, CPU)
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(ModelError, match="no CLIP model could be loaded"):
        load_clip_score(tmp_path, None, CPU)


@pytest.mark.parametrize("change", [{"resample": 2}, {"crop_size": 8}, {"size": 8}, {"do_normalize": False}])
def test_a_preprocessing_that_is_not_clips_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    save_tiny_clip(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: expected a bicubic"):
        load_clip_score(tmp_path, None, CPU)
