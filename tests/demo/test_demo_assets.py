import json
import shutil

import pytest
import torch

from alignment_core.rewards.attribute_classifier import AttributeClassifier
from demo.assets import file_digests, read_gates, verify_assets
from demo.captions import held_out_captions
from demo.classifiers import attribute_accuracy
from demo.gates import THRESHOLDS, failed_gates
from demo.sampling import draw_samples, load_pipeline

MAX_BYTES = 8_000_000


def test_every_shipped_file_has_the_digest_in_gates_json():
    verify_assets()


def test_changed_missing_and_unknown_files_are_named(assets, tmp_path):
    folder = shutil.copytree(assets, tmp_path / "assets")
    (folder / "prompts.txt").write_text("a red circle\n")
    (folder / "pairs.parquet").unlink()
    (folder / "model" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"model/notes\.txt, pairs\.parquet, prompts\.txt"):
        verify_assets(folder)


def test_the_shipped_files_are_small_and_never_pickles(assets):
    files = [path for path in assets.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".parquet", ".txt"}
    assert "model/unet/diffusion_pytorch_model.safetensors" in file_digests(assets)


def test_every_gate_passed_at_its_threshold():
    gates = read_gates()["gates"]
    assert {attribute: gate["threshold"] for attribute, gate in gates.items()} == THRESHOLDS
    accuracy = {attribute: gate["accuracy"] for attribute, gate in gates.items()}
    assert failed_gates(accuracy, THRESHOLDS) == []


def test_a_failed_gate_says_by_how_much():
    accuracy = {"color": 1.0, "shape": 0.5, "position": 1.0}
    assert failed_gates(accuracy, THRESHOLDS) == ["shape 0.500 is below 0.8"]


def test_the_evaluation_prompts_are_the_held_out_captions(assets):
    lines = (assets / "prompts.txt").read_text().splitlines()
    assert lines == [caption.text for caption in held_out_captions()]


def test_the_model_is_stable_diffusion_in_the_diffusers_format(assets):
    index = json.loads((assets / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]
    assert index["feature_extractor"] == [None, None]
    assert index["requires_safety_checker"] is False
    scheduler = json.loads((assets / "model" / "scheduler" / "scheduler_config.json").read_text())
    expected = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    assert {key: scheduler[key] for key in expected} == expected


def test_every_caption_is_one_token_a_word(pipeline):
    for caption in held_out_captions():
        token_ids = pipeline.tokenizer(caption.text).input_ids
        assert len(token_ids) == len(caption.text.split()) + 2
        assert pipeline.tokenizer.decode(token_ids, skip_special_tokens=True) == caption.text


def test_fresh_samples_show_what_held_out_captions_name(pipeline, assets):
    prompts = [caption.text for caption in held_out_captions()[:48]]
    images = draw_samples(pipeline, prompts, seed=987)
    assert images.shape == (48, 3, 32, 32)
    judge = AttributeClassifier.load(assets / "classifiers" / "judge")
    accuracy = attribute_accuracy(judge, images, prompts)
    assert accuracy["color"] > 0.9
    assert accuracy["position"] > 0.9
    assert accuracy["shape"] > 0.7


def test_the_same_seed_draws_the_same_images_after_saving_again(pipeline, tmp_path):
    prompts = ["a big red circle on the left", "a blue cross"]
    images = draw_samples(pipeline, prompts, seed=1)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    again = load_pipeline(tmp_path)
    assert torch.equal(draw_samples(again, prompts, seed=1), images)
    assert not torch.equal(draw_samples(again, prompts, seed=2), images)
    red = images[0].mean(dim=(1, 2))
    assert red[0] > red[1:].max() + 0.05
