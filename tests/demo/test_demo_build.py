import pytest
from transformers import CLIPTokenizer

from demo.assets import read_gates, verify_assets
from demo.build import BuildConfig, build, run_stage
from demo.sampling import draw_samples, load_pipeline
from demo.text import new_tokenizer, word_merges

SHORT = BuildConfig(
    classifier_steps=20,
    vae_steps=60,
    num_latents=64,
    steps_per_round=40,
    max_rounds=2,
    samples_per_caption=1,
    num_pairs=4,
    samples_per_pair=2,
    thresholds={"color": 0.0, "shape": 0.0, "position": 0.0},
)


def test_a_finished_stage_is_not_run_again(tmp_path):
    lines = []
    first = run_stage(tmp_path / "vae", lambda _: {"num_steps": 3}, lines.append)
    assert run_stage(tmp_path / "vae", pytest.fail, lines.append) == first
    assert lines[-1] == "vae: already built"


def test_a_stage_that_was_stopped_starts_again_from_nothing(tmp_path):
    def stopped(folder):
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "vae", stopped, print)
    assert not (tmp_path / "vae").exists()
    run_stage(tmp_path / "vae", lambda _: {}, print)
    assert [path.name for path in (tmp_path / "vae").iterdir()] == ["stage.json"]


def test_words_whose_merges_overlap_are_one_token_each(tmp_path):
    assert ("r", "i") in word_merges(["right", "triangle"])
    tokenizer = new_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    sentence = "a right triangle"
    assert tokenizer.tokenize(sentence) == ["a</w>", "right</w>", "triangle</w>"]
    assert loaded(sentence).input_ids == tokenizer(sentence).input_ids
    assert loaded.model_max_length == 16


@pytest.mark.slow
def test_a_short_build_ends_with_verified_files_that_sample(tmp_path):
    report = build(SHORT, tmp_path, print)
    assert report == read_gates(tmp_path)
    assert report["rounds"][0]["num_steps"] == 40
    verify_assets(tmp_path)
    images = draw_samples(load_pipeline(tmp_path / "model"), ["a red circle"], seed=0)
    assert images.shape == (1, 3, 32, 32)


@pytest.mark.slow
def test_gates_that_never_pass_fail_clearly_and_keep_the_stages(tmp_path):
    strict = BuildConfig(**{**vars(SHORT), "thresholds": {"color": 1.1, "shape": 0.0, "position": 0.0}})
    with pytest.raises(RuntimeError, match=r"gates failed after 2 rounds: color .* is below 1.1"):
        build(strict, tmp_path, print)
    assert (tmp_path / "stages" / "round_2" / "model_index.json").is_file()
    assert not (tmp_path / "gates.json").exists()
