from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from alignment_core.errors import AlignmentError, ModelError
from alignment_core.protocols import RewardModel
from alignment_core.rewards.attribute_classifier import AttributeClassifier, ClassifierConfig
from alignment_core.rewards.build import build_prompt_following, build_reward
from alignment_core.rewards.colorfulness import Colorfulness
from alignment_core.rewards.convert import convert
from alignment_core.rewards.finite import FiniteReward
from alignment_core.spec import RewardSpec
from tests.alignment_core.rewards.by_hand import BLIP, clip_shape, head_state, image_reward_state, open_clip_state
from tests.alignment_core.rewards.clip import save_tiny_clip, save_tiny_tokenizer

CPU = torch.device("cpu")
COLORS = {"color": {"red": "red", "crimson": "red", "blue": "blue"}, "shape": {"circle": "circle", "square": "square"}}


def spec(**fields: object) -> RewardSpec:
    return TypeAdapter[RewardSpec](RewardSpec).validate_python(fields)


def images(num: int = 2) -> Tensor:
    return torch.rand(num, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, str]:
    torch.manual_seed(0)
    AttributeClassifier(ClassifierConfig(16, (8, 8), COLORS)).save(tmp_path / "classifier")
    return {"type": "local", "path": str(tmp_path / "classifier")}


@pytest.fixture
def clip(tmp_path: Path) -> dict[str, str]:
    save_tiny_clip(tmp_path / "clip")
    return {"type": "local", "path": str(tmp_path / "clip")}


@pytest.fixture
def fields(weights: dict[str, str], clip: dict[str, str], tmp_path: Path) -> dict[str, dict[str, object]]:
    """What each type of reward needs besides its name, made by the parts that users have: the converter among them."""
    tokenizer = tmp_path / "tokenizer"
    vocab = save_tiny_tokenizer(tokenizer)
    torch.save({"state_dict": open_clip_state(len(vocab))}, tmp_path / "HPS.pt")
    convert("hpsv2", tmp_path / "HPS.pt", tmp_path / "hpsv2", tokenizer, clip=clip_shape(vocab))
    convert("hpsv2.1", tmp_path / "HPS.pt", tmp_path / "hpsv2.1", tokenizer, clip=clip_shape(vocab))
    (tokenizer / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]) + "\n"
    )
    torch.save(image_reward_state(), tmp_path / "IR.pt")
    convert("image_reward", tmp_path / "IR.pt", tmp_path / "image_reward", tokenizer, blip=BLIP)
    torch.save(head_state(24), tmp_path / "head.pth")
    convert("aesthetic", tmp_path / "head.pth", tmp_path / "aesthetic", None)
    made = {name: {"type": "local", "path": str(tmp_path / name)} for name in ("hpsv2", "hpsv2.1", "image_reward")}
    return {
        "attribute_classifier": {"weights": weights},
        "clip_score": {"model": clip},
        "pick_score": {"model": clip},
        "hpsv2": {"model": made["hpsv2"]},
        "hpsv2.1": {"model": made["hpsv2.1"]},
        "image_reward": {"weights": made["image_reward"]},
        "aesthetic": {"model": clip, "weights": {"type": "local", "path": str(tmp_path / "aesthetic")}},
        "weighted_sum": {"parts": [{"weight": 2, "reward": {"type": "clip_score", "model": clip}}]},
    }


def types() -> list[str]:
    (union, *_) = get_args(RewardSpec)
    return [member.model_fields["type"].default for member in get_args(union)]


@pytest.mark.parametrize("kind", [kind for kind in types() if kind != "remote"])  # which test_remote.py builds
def test_every_reward_of_the_spec_can_be_built_and_scores(kind: str, fields: dict[str, dict[str, object]]) -> None:
    reward: RewardModel = build_reward(spec(type=kind, **fields.get(kind, {})), CPU)
    scores = reward(images(), ["a red circle", "a blue square"])
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert reward.differentiable == (kind != "jpeg_size")
    x = images().requires_grad_()
    if reward.differentiable:
        (gradient,) = torch.autograd.grad(reward(x, ["a red circle", "a blue square"]).sum(), x)
        assert gradient.isfinite().all()
    else:
        assert not reward(x, ["a red circle", "a blue square"]).requires_grad


def test_the_options_of_the_spec_reach_the_reward() -> None:
    prompts = ["", ""]
    small = build_reward(spec(type="jpeg_size", quality=10, direction="incompressible"), CPU)(images(), prompts)
    large = build_reward(spec(type="jpeg_size", quality=95, direction="incompressible"), CPU)(images(), prompts)
    minus = build_reward(spec(type="jpeg_size", quality=95), CPU)(images(), prompts)
    assert (small < large).all()
    assert torch.equal(minus, -large)


def test_prompt_following_by_a_classifier_is_the_share_of_right_attributes(weights: dict[str, str]) -> None:
    prompts = ["a crimson circle", "a blue circle", "a red square", "a blue square"]
    one = images(1).repeat(4, 1, 1, 1)
    judge = build_prompt_following(spec(type="attribute_classifier", weights=weights), CPU)
    shares = judge(one, prompts)
    # One image has one colour and one shape: of the four prompts one is right, two are half right, one is wrong.
    assert sorted(shares.tolist()) == [0.0, 0.5, 0.5, 1.0]
    probabilities = build_reward(spec(type="attribute_classifier", weights=weights), CPU)(one, prompts)
    assert probabilities.argmax() == shares.argmax()


def test_prompt_following_by_any_other_reward_is_its_score() -> None:
    judge = build_prompt_following(spec(type="colorfulness"), CPU)
    torch.testing.assert_close(judge(images(), ["", ""]), Colorfulness()(images(), ["", ""]))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "attribute_classifier", "weights": {"type": "catalog", "name": "shapes-judge"}},
        {"type": "clip_score", "model": {"type": "catalog", "name": "shapes-judge"}},
        {"type": "hpsv2", "model": {"type": "catalog", "name": "shapes-judge"}},
        {"type": "image_reward", "weights": {"type": "catalog", "name": "shapes-judge"}},
    ],
)
def test_a_catalog_name_is_refused_as_something_the_service_resolves(fields: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"'taste': 'shapes-judge' .* resolved by the service") as raised:
        build_reward(spec(name="taste", **fields), CPU)
    assert raised.value.code == "reward_not_resolved"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = {"type": "local", "path": str(tmp_path / "nowhere")}
    with pytest.raises(ModelError, match=r"'attribute_classifier': expected a folder at .*nowhere"):
        build_reward(spec(type="attribute_classifier", weights=missing), CPU)


def test_a_folder_without_a_classifier_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json") as raised:
        build_reward(spec(type="attribute_classifier", weights={"type": "local", "path": str(tmp_path)}), CPU)
    assert (raised.value.code, raised.value.category) == ("reward_invalid", "user")


def test_a_hub_repository_that_cannot_be_reached_is_named() -> None:
    source = {"type": "hub", "repo_id": "no-such-owner/no-such-clip", "revision": "0" * 40}
    with pytest.raises(
        ModelError, match="no-such-owner/no-such-clip@000000000000: the Hugging Face Hub cannot be reached"
    ) as raised:
        build_reward(spec(type="clip_score", model=source), CPU)
    assert raised.value.retryable


class LogContrast:
    """log of the brightest minus the darkest value: minus infinity for flat images."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        return (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))).log()


def test_a_score_that_is_no_number_names_the_reward_and_the_prompt() -> None:
    reward = FiniteReward("contrast", LogContrast(), CPU)
    batch = images(3)
    assert reward(batch, ["a", "b", "c"]).isfinite().all()
    batch[1] = 0.5
    with pytest.raises(AlignmentError, match=r"'contrast' gave -inf for the prompt 'b'") as raised:
        reward(batch, ["a", "b", "c"])
    assert raised.value.code == "reward_not_finite"
