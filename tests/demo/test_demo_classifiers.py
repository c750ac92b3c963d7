import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from alignment_core.rewards.attribute_classifier import AttributeClassifier, ClassifierConfig
from demo.captions import all_captions
from demo.classifiers import ATTRIBUTES, attribute_accuracy
from demo.renderer import render_random

CONFIG = ClassifierConfig(
    image_size=16,
    channels=(4, 6),
    attributes={
        "color": {"red": "red", "crimson": "red", "blue": "blue", "light blue": "cyan"},
        "side": {"on the left": "left", "on the right": "right"},
    },
)


@pytest.fixture
def classifier() -> AttributeClassifier:
    torch.manual_seed(0)
    return AttributeClassifier(CONFIG)


@pytest.fixture
def folder(classifier, tmp_path):
    classifier.save(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a red dog", {"color": 0}),
        ("Crimson sky on the right", {"color": 0, "side": 1}),
        ("a light blue sky", {"color": 2}),
        ("blue or red?", {"color": 1}),
    ],
)
def test_words_and_phrases_name_values(prompt, named):
    assert CONFIG.parse(prompt) == named


@pytest.mark.parametrize("prompt", ["", "a dog", "a bored man", "bluest"])
def test_a_prompt_without_known_words_is_refused_with_the_known_ones(prompt):
    with pytest.raises(ValueError, match="crimson") as error:
        CONFIG.parse(prompt)
    assert repr(prompt) in str(error.value)


def test_the_score_is_the_mean_probability_of_the_named_values(classifier):
    images = torch.rand(2, 3, 16, 16)
    scores = classifier(images, ["red on the left", "blue"])
    p = {attribute: logits.softmax(-1) for attribute, logits in classifier.logits(images).items()}
    expected = [(p["color"][0, 0] + p["side"][0, 0]) / 2, p["color"][1, 1]]
    torch.testing.assert_close(scores, torch.stack(expected))
    assert scores.dtype == torch.float32


def test_the_score_has_a_gradient_in_the_images(classifier):
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    classifier(images, ["red", "blue"]).sum().backward()
    assert classifier.differentiable
    assert images.grad is not None
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()


@given(st.integers(8, 40), st.integers(8, 40))
def test_images_of_any_size_are_scored(height, width):
    scores = AttributeClassifier(CONFIG)(torch.rand(1, 3, height, width), ["red"])
    assert scores.shape == (1,)
    assert 0 <= scores.item() <= 1


def test_accuracy_is_the_share_of_named_attributes_that_are_predicted(classifier):
    images = torch.rand(1, 3, 16, 16)
    predicted = {a: CONFIG.values(a)[int(p)] for a, p in classifier.predict(images).items()}
    color = "crimson" if predicted["color"] == "red" else "red"
    color = {"red": "red", "blue": "blue", "cyan": "light blue"}.get(predicted["color"], color)
    other_side = "on the left" if predicted["side"] == "right" else "on the right"
    assert classifier.accuracy(images, [color]).tolist() == [1.0]
    assert classifier.accuracy(images, [f"{color} {other_side}"]).tolist() == [0.5]
    assert classifier.accuracy(images, [other_side]).tolist() == [0.0]


def test_as_many_prompts_as_images_are_needed(classifier):
    with pytest.raises(ValueError, match="2 images for 1 prompts"):
        classifier(torch.rand(2, 3, 16, 16), ["red"])


def test_a_saved_classifier_loads_frozen_with_the_same_scores(classifier, folder):
    loaded = AttributeClassifier.load(folder)
    images = torch.rand(3, 3, 16, 16)
    assert loaded.name == "tiny"
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(images, ["red"] * 3), classifier(images, ["red"] * 3))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_with_a_missing_file_is_refused_by_its_name(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        AttributeClassifier.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": []},
        {"channels": [4, -6]},
        {"channels": [4] * 6},
        {"image_size": "16"},
        {"attributes": {}},
        {"attributes": {"color": {"red": "red"}}},
        {"unknown": 1},
    ],
)
def test_a_bad_config_is_refused(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match="cannot load classifier folder"):
        AttributeClassifier.load(folder)


def test_weights_with_unknown_or_missing_keys_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="extra"):
        AttributeClassifier.load(folder)
    weights.popitem()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="Missing key"):
        AttributeClassifier.load(folder)


def test_weights_that_are_not_safetensors_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="cannot load classifier folder"):
        AttributeClassifier.load(folder)


def test_every_caption_of_the_demo_world_names_its_attributes():
    config = ClassifierConfig(32, (4,), ATTRIBUTES)
    for caption in all_captions():
        named = {a: config.values(a)[value] for a, value in config.parse(caption.text).items()}
        assert named == {key: value for key, value in vars(caption).items() if value is not None}


@pytest.mark.parametrize("name", ["reward", "judge"])
def test_the_shipped_classifiers_read_rendered_images(name, assets):
    images, captions = render_random(all_captions(), 600, np.random.default_rng(4321))
    classifier = AttributeClassifier.load(assets / "classifiers" / name)
    prompts = [caption.text for caption in captions]
    accuracy = attribute_accuracy(classifier, torch.from_numpy(images), prompts)
    assert accuracy["color"] > 0.99
    assert accuracy["position"] > 0.99
    assert accuracy["shape"] > 0.94
    assert accuracy["size"] > 0.94


def test_the_judge_is_not_the_reward(assets):
    reward, judge = (AttributeClassifier.load(assets / "classifiers" / n) for n in ("reward", "judge"))
    assert reward.config.channels != judge.config.channels
    assert reward.config.attributes == judge.config.attributes
    shapes = {tuple(p.shape) for p in reward.parameters()} ^ {tuple(p.shape) for p in judge.parameters()}
    assert shapes
