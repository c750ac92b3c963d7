import json
import shutil

import pytest
import torch

from alignment_core.rewards.attribute_classifier import AttributeClassifier
from demo.assets import ASSETS, read_gates
from demo.captions import held_out_captions
from demo.classifiers import attribute_accuracy
from demo.families import FAMILIES
from demo.families.assets import FAMILY_ASSETS, load_sd3, load_sdxl, verify_family
from demo.families.build import SD3, SDXL, FamiliesConfig, build
from demo.families.job import family_job
from demo.gates import failed_gates
from demo.sampling import draw_samples
from demo.text import MAX_TOKENS

MAX_BYTES = 8_000_000
LOADERS = {"sdxl": load_sdxl, "sd3": load_sd3}
SHORT = FamiliesConfig(
    num_latents=64,
    steps_per_round=40,
    max_rounds=2,
    samples_per_caption=1,
    thresholds={"color": 0.0, "shape": 0.0, "position": 0.0},
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def trained(family):
    return LOADERS[family](FAMILY_ASSETS / family)


def judged(images, prompts):
    judge = AttributeClassifier.load(ASSETS / "classifiers" / "judge")
    return attribute_accuracy(judge, images, prompts)


def test_every_shipped_file_has_the_digest_in_its_gates_json(family):
    verify_family(FAMILY_ASSETS / family)


def test_changed_missing_and_unknown_files_are_named(family, tmp_path):
    folder = shutil.copytree(FAMILY_ASSETS, tmp_path / "assets")
    (folder / family / "model_index.json").write_text("{}")
    (folder / family / "vae" / "config.json").unlink()
    (folder / family / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"model_index\.json, notes\.txt, vae/config\.json"):
        verify_family(folder / family)


def test_both_together_are_small_and_never_pickles():
    files = [path for path in FAMILY_ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_every_gate_passed_at_its_threshold(family):
    gates = read_gates(FAMILY_ASSETS / family)["gates"]
    thresholds = FamiliesConfig().thresholds
    assert {attribute: gate["threshold"] for attribute, gate in gates.items()} == thresholds
    assert failed_gates({attribute: gate["accuracy"] for attribute, gate in gates.items()}, thresholds) == []


def test_each_is_a_whole_pipeline_of_its_family():
    parts = {name: json.loads((FAMILY_ASSETS / name / "model_index.json").read_text()) for name in FAMILIES}
    assert parts["sdxl"]["_class_name"] == "StableDiffusionXLPipeline"
    assert parts["sdxl"]["text_encoder_2"] == ["transformers", "CLIPTextModelWithProjection"]
    assert parts["sdxl"]["force_zeros_for_empty_prompt"] is True
    assert parts["sd3"]["_class_name"] == "StableDiffusion3Pipeline"
    assert parts["sd3"]["transformer"] == ["diffusers", "SD3Transformer2DModel"]
    assert parts["sd3"]["text_encoder_3"] == [None, None]


def test_fresh_samples_show_what_held_out_captions_name(trained):
    prompts = [caption.text for caption in held_out_captions()[:24]]
    images = draw_samples(trained, prompts, seed=987)
    assert images.shape == (24, 3, 32, 32)
    accuracy = judged(images, prompts)
    assert accuracy["color"] > 0.9
    assert accuracy["position"] > 0.9
    assert accuracy["shape"] > 0.7


def test_sd3_draws_what_it_is_told_however_many_tokens_stand_for_the_missing_encoder():
    pipeline = load_sd3(FAMILY_ASSETS / "sd3")
    prompts = [caption.text for caption in held_out_captions()]

    def draw(max_sequence_length):
        output = pipeline(
            prompts,
            num_inference_steps=12,
            guidance_scale=2.5,
            max_sequence_length=max_sequence_length,
            generator=torch.Generator().manual_seed(3),
            output_type="pt",
        )
        return output.images

    for length in (MAX_TOKENS, 77):
        accuracy = judged(draw(length), prompts)
        assert accuracy["color"] > 0.9
        assert accuracy["position"] > 0.9


def test_a_family_s_job_takes_changes_part_by_part(family):
    spec = family_job(family, training={"steps": 7})
    assert spec.training.steps == 7
    assert spec.training.batch_size == 16
    assert list(spec.evaluation.prompts) == (ASSETS / "prompts.txt").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("built", [SDXL, SD3], ids=lambda built: built.name)
def test_a_short_build_ends_with_verified_files_that_sample(built, tmp_path):
    report = build(built, SHORT, tmp_path, print)
    assert report == read_gates(tmp_path / built.name)
    assert report["rounds"][0]["num_steps"] == 40
    verify_family(tmp_path / built.name)
    assert draw_samples(built.load(tmp_path / built.name), ["a red circle"], seed=0).shape == (1, 3, 32, 32)


@pytest.mark.slow
def test_gates_that_never_pass_fail_clearly_and_keep_the_rounds(tmp_path):
    strict = FamiliesConfig(**{**vars(SHORT), "thresholds": {"color": 1.1}})
    with pytest.raises(RuntimeError, match=r"sdxl: gates failed after 2 rounds: color .* is below 1.1"):
        build(SDXL, strict, tmp_path, print)
    assert (tmp_path / "stages" / "sdxl_2" / "model_index.json").is_file()
    assert not (tmp_path / "sdxl").exists()
