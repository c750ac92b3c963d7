import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignment_core.evaluation.compare import Comparison, seeds_of
from alignment_core.evaluation.draw_and_judge import Drawn
from alignment_core.evaluation.report import Bootstrap, Provenance, build_report, write_report
from alignment_core.evaluation.statistics import Scores, paired_p_value
from alignment_core.reports import ComparedModel, Diversity, EvaluationReport, Interval, wilson_interval
from alignment_core.versions import versions

BOOTSTRAP = Bootstrap(num_resamples=500, confidence=0.95, seed=0)
PROVENANCE = Provenance(
    step=40,
    base=ComparedModel(label="initial model", step=None, spec_sha256=None),
    policy=ComparedModel(label="step 40", step=40, spec_sha256="a" * 64),
    num_inference_steps=12,
    guidance_scale=2.5,
    spec_sha256="a" * 64,
    base_model_sha256="b" * 64,
)


def comparison(base: dict[str, Scores], policy: dict[str, Scores], shape: tuple[int, int]) -> Comparison:
    images = np.zeros((1, shape[1], 4, 4, 3), np.uint8)
    distances = (np.full((shape[0], 1), 0.2), np.full((shape[0], 1), 0.1)) if shape[1] > 1 else (None, None)
    return Comparison(
        prompts=tuple(f"prompt {index}" for index in range(shape[0])),
        seeds=seeds_of(0, *shape),
        shown=(0,),
        base=Drawn(base, distances[0], images),
        policy=Drawn(policy, distances[1], images),
    )


def report_of(gain: Scores, name: str = "taste") -> EvaluationReport:
    base = np.random.default_rng(0).normal(size=gain.shape)
    return build_report(comparison({name: base}, {name: base + gain}, gain.shape), PROVENANCE, BOOTSTRAP, 1.5)


def noise(shape: tuple[int, int], seed: int = 1) -> Scores:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(2.0, "improved"), (0.0, "not_improved"), (-2.0, "worse"), (0.05, "not_improved"), (-0.05, "not_improved")],
)
def test_the_verdict_follows_from_the_interval_of_the_primary_gain(shift: float, verdict: str) -> None:
    report = report_of(noise((60, 2)) - noise((60, 2)).mean() + shift)
    assert report.verdict == verdict
    assert report.primary_reward == "taste"
    assert report.rewards[0].gain == pytest.approx(shift, abs=1e-9)
    interval = report.rewards[0].gain_interval
    assert (interval.low > 0) == (verdict == "improved")
    assert (interval.high < 0) == (verdict == "worse")


def test_the_first_reward_decides() -> None:
    zeros, ones = np.zeros((30, 2)), np.ones((30, 2))
    both = comparison({"a": zeros, "b": zeros}, {"a": ones, "b": -ones}, (30, 2))
    report = build_report(both, PROVENANCE, BOOTSTRAP, 0.0)
    assert (report.primary_reward, report.verdict) == ("a", "improved")
    assert [line.gain for line in report.rewards] == [1, -1]


def test_without_rewards_or_with_one_prompt_there_is_no_verdict() -> None:
    report = build_report(comparison({}, {}, (30, 2)), PROVENANCE, BOOTSTRAP, 0.0)
    assert (report.primary_reward, report.verdict, report.rewards) == (None, "unknown", [])
    assert report_of(np.ones((1, 4))).verdict == "unknown"


def test_every_number_can_be_recomputed_from_the_scores_of_the_images() -> None:
    report = report_of(noise((25, 2)).round(0))
    line = report.rewards[0]
    base = np.array([image.base["taste"] for image in report.images])
    policy = np.array([image.policy["taste"] for image in report.images])
    assert line.base_mean == pytest.approx(base.mean())
    assert line.policy_mean == pytest.approx(policy.mean())
    assert line.gain == pytest.approx((policy - base).mean())
    assert line.num_ties == (policy == base).sum() > 0
    assert line.win_rate == pytest.approx(((policy > base) + 0.5 * (policy == base)).mean())
    assert [image.prompt for image in report.images[:3]] == ["prompt 0", "prompt 0", "prompt 1"]
    assert [image.seed for image in report.images] == [seed for row in seeds_of(0, 25, 2) for seed in row]


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_the_share_of_prompts_won_has_wilsons_interval_whatever_the_number_of_seeds(num_seeds: int) -> None:
    line = report_of(noise((40, num_seeds))).rewards[0]
    assert line.prompts_won is not None
    assert line.wilson_interval == wilson_interval(line.prompts_won * 40, 40, 0.95)
    assert (line.prompts_won == line.win_rate) == (num_seeds == 1)
    assert line.bootstrap_interval.low <= line.win_rate <= line.bootstrap_interval.high


def test_one_seed_has_no_diversity() -> None:
    assert report_of(noise((40, 1))).diversity is None
    change = Interval(low=-0.1, high=-0.1, confidence=0.95)
    assert report_of(noise((40, 2))).diversity == Diversity(base=0.2, policy=0.1, change_interval=change)


def test_a_gain_has_a_p_value_and_a_size_in_the_bases_own_spread() -> None:
    gain = noise((40, 2)) + 1
    base = np.random.default_rng(0).normal(size=gain.shape)
    line = report_of(gain).rewards[0]
    assert line.p_value == paired_p_value(gain)
    assert line.effect_size == pytest.approx(gain.mean() / base.std())
    flat = comparison({"a": np.zeros((30, 2))}, {"a": noise((30, 2))}, (30, 2))
    assert build_report(flat, PROVENANCE, BOOTSTRAP, 0.0).rewards[0].effect_size is None


def test_rewards_that_were_trained_on_are_marked() -> None:
    zeros = np.zeros((30, 2))
    both = comparison({"a": zeros, "b": zeros}, {"a": zeros, "b": zeros}, (30, 2))
    report = build_report(both, replace(PROVENANCE, trained=frozenset({"b"})), BOOTSTRAP, 0.0)
    assert {line.name: line.trained for line in report.rewards} == {"a": False, "b": True}


def test_a_report_of_format_1_reads_as_what_it_said() -> None:
    new = report_of(noise((30, 1)))
    first = {"format_version", "step", "num_prompts", "seeds_per_prompt", "num_inference_steps", "guidance_scale"}
    first |= {"primary_reward", "verdict", "prompt_following", "diversity", "spec_sha256", "base_model_sha256"}
    old = new.model_dump(mode="json", include=first | {"versions", "elapsed_seconds", "images"})
    line = new.rewards[0].model_dump(mode="json")
    kept = ("name", "base_mean", "policy_mean", "gain", "gain_interval", "win_rate", "num_ties")
    old |= {"format_version": 1, "diversity": {"base": 0.2, "policy": 0.1}}
    old["rewards"] = [{name: line[name] for name in kept} | {"win_rate_interval": line["wilson_interval"]}]
    old["prompt_following"] = old["rewards"][0]
    read = EvaluationReport.model_validate(old)
    assert read.format_version == 2
    assert read.rewards[0].gain == new.rewards[0].gain
    assert read.rewards[0].bootstrap_interval == new.rewards[0].wilson_interval
    assert read.prompt_following == read.rewards[0]
    assert (read.base.label, read.policy.label, read.policy.step) == ("initial model", "step 40", 40)
    assert EvaluationReport.model_validate_json(read.model_dump_json()) == read


def test_the_judge_stands_apart_from_the_rewards() -> None:
    scores = {"taste": np.zeros((30, 2)), "prompt_following": np.full((30, 2), 0.5)}
    after = {"taste": np.ones((30, 2)), "prompt_following": np.full((30, 2), 0.25)}
    report = build_report(comparison(scores, after, (30, 2)), PROVENANCE, BOOTSTRAP, 0.0)
    assert [line.name for line in report.rewards] == ["taste"]
    assert report.prompt_following is not None
    assert report.prompt_following.gain == -0.25
    assert report.verdict == "improved"


def test_a_rewards_interval_does_not_depend_on_the_other_rewards() -> None:
    gain, zeros = noise((30, 2)), np.zeros((30, 2))
    alone = build_report(comparison({"a": zeros}, {"a": gain}, (30, 2)), PROVENANCE, BOOTSTRAP, 0.0)
    beside = comparison({"b": zeros, "a": zeros}, {"b": -gain, "a": gain}, (30, 2))
    assert build_report(beside, PROVENANCE, BOOTSTRAP, 0.0).rewards[1] == alone.rewards[0]


def test_the_report_says_where_it_comes_from() -> None:
    report = report_of(noise((30, 2)))
    assert (report.step, report.num_inference_steps, report.guidance_scale) == (40, 12, 2.5)
    assert (report.spec_sha256, report.base_model_sha256) == ("a" * 64, "b" * 64)
    assert (report.num_prompts, report.seeds_per_prompt, report.elapsed_seconds) == (30, 2, 1.5)
    assert report.versions == versions()
    libraries = {"attune", "python", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow"}
    assert set(report.versions) == libraries


def test_the_written_file_reads_back_as_the_same_report_and_leaves_nothing_else(tmp_path: Path) -> None:
    report = report_of(noise((30, 2)))
    path = tmp_path / "deep" / "report.json"
    write_report(report_of(np.zeros((2, 2))), path)
    write_report(report, path)
    assert EvaluationReport.model_validate_json(path.read_text()) == report
    assert json.loads(path.read_text())["format_version"] == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]
