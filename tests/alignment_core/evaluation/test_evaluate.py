from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignment_core.errors import AlignmentError
from alignment_core.evaluation.compare import seeds_of
from alignment_core.evaluation.draw_and_judge import Judges
from alignment_core.evaluation.evaluate import ModelPair, ReportFolder, evaluate, protocol_of
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.events import (
    EvaluationCompleted,
    Event,
    SamplesDrawn,
    WarningRaised,
    event_from_json,
    event_to_json,
)
from alignment_core.protocols import Sampler
from alignment_core.reports import ComparedModel, EvaluationReport
from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.colorfulness import Colorfulness
from tests.alignment_core.evaluation.models import FlatSampler, NoiseSampler, OnlyShortPrompts, PromptLength

PROMPTS = [f"prompt {index}" for index in range(24)]


def events_of(
    workdir: Path,
    base: Sampler | None = None,
    policy: Sampler | None = None,
    prompts: Sequence[str] = PROMPTS,
    max_prompts: int = 128,
) -> Iterator[Event]:
    judges = Judges({"brightness": Brightness(), "colorfulness": Colorfulness()}, PromptLength())
    return evaluate(
        ModelPair(base or NoiseSampler(), policy or NoiseSampler(0.2)),
        protocol_of(
            prompts,
            judges,
            Bootstrap(num_resamples=200, confidence=0.95, seed=5),
            max_prompts=max_prompts,
            seeds_per_prompt=2,
            batch_size=8,
            grid_prompts=3,
        ),
        Provenance(
            step=7,
            base=ComparedModel(label="initial model", step=None, spec_sha256=None),
            policy=ComparedModel(label="step 7", step=7, spec_sha256="a" * 64),
            num_inference_steps=12,
            guidance_scale=2.5,
            spec_sha256="a" * 64,
            base_model_sha256="b" * 64,
        ),
        ReportFolder(workdir / "evaluation/step-00000007", workdir),
    )


def report_of(events: list[Event]) -> EvaluationReport:
    last = events[-1]
    assert isinstance(last, EvaluationCompleted)
    return EvaluationReport.model_validate(last.report)


def test_an_evaluation_ends_with_a_picture_and_a_report(tmp_path: Path) -> None:
    *progress, samples, completed = events_of(tmp_path)
    others = [event.type for event in progress if event.type != "phase_progressed"]
    assert others == ["phase_changed", "phase_divided", "phase_changed"]
    assert sum(event.type == "phase_progressed" for event in progress) == 2 * 6
    assert isinstance(samples, SamplesDrawn)
    assert samples.path == "evaluation/step-00000007/grid.png"
    assert samples.prompts == ["prompt 0", "prompt 8", "prompt 16"]
    assert samples.grid is not None
    folder = (tmp_path / samples.path).parent
    picture = np.asarray(Image.open(tmp_path / samples.path))
    for one in samples.grid.tiles:
        position = samples.prompts[one.prompt].removeprefix("prompt ")
        for model, place in (("base", one.base), ("policy", one.policy)):
            drawn = np.asarray(Image.open(folder / "images" / f"{model}-{position}-{one.seed}.png"))
            assert (picture[place.y, place.x] == drawn[0, 0]).all(), (
                "the image of this model, prompt and seed stands there"
            )
    assert isinstance(completed, EvaluationCompleted)
    assert completed.path == "evaluation/step-00000007/report.json"
    assert event_from_json(event_to_json(completed)) == completed


def test_the_report_of_the_event_is_that_of_the_file(tmp_path: Path) -> None:
    report = report_of(list(events_of(tmp_path)))
    path = tmp_path / "evaluation/step-00000007/report.json"
    assert EvaluationReport.model_validate_json(path.read_text()) == report
    assert (report.step, report.verdict, report.num_prompts) == (7, "improved", 24)
    assert report.rewards[0].gain == pytest.approx(0.2, abs=1e-3)
    assert report.rewards[0].win_rate == 1
    assert report.prompt_following is not None
    assert report.prompt_following.num_ties == 48
    assert report.elapsed_seconds > 0


def test_the_grid_prompts_images_are_saved_one_by_one(tmp_path: Path) -> None:
    list(events_of(tmp_path))
    folder = tmp_path / "evaluation/step-00000007/images"
    seeds = seeds_of(5, 24, 2)
    names = {f"{model}-{row}-{seed}.png" for model in ("base", "policy") for row in (0, 8, 16) for seed in seeds[row]}
    assert {path.name for path in folder.iterdir()} == names
    pixels = np.asarray(Image.open(folder / f"base-8-{seeds[8][1]}.png"))
    drawn = NoiseSampler()(["prompt 8"], [seeds[8][1]])[0].permute(1, 2, 0)
    np.testing.assert_array_equal(pixels, (drawn * 255).round().byte().numpy())


def test_two_evaluations_of_the_same_models_agree(tmp_path: Path) -> None:
    first, second = (report_of(list(events_of(tmp_path / name))) for name in ("a", "b"))
    assert first.model_copy(update={"elapsed_seconds": 0}) == second.model_copy(update={"elapsed_seconds": 0})


def test_a_model_against_itself_is_not_improved(tmp_path: Path) -> None:
    report = report_of(list(events_of(tmp_path, NoiseSampler(), NoiseSampler())))
    assert report.verdict == "not_improved"
    assert (report.rewards[0].gain, report.rewards[0].win_rate, report.rewards[0].num_ties) == (0, 0.5, 48)


def test_a_collapsed_policy_shows_in_the_diversity(tmp_path: Path) -> None:
    report = report_of(list(events_of(tmp_path, NoiseSampler(), FlatSampler((1.0, 1.0, 1.0)))))
    assert report.verdict == "improved"  # brightness is hacked by white images
    assert report.diversity is not None
    assert report.diversity.policy == 0
    assert report.diversity.base > 0.1


def test_a_prompt_that_comes_twice_counts_once_and_the_first_ones_are_used(tmp_path: Path) -> None:
    base = NoiseSampler()
    report = report_of(list(events_of(tmp_path, base, prompts=["x", "y", "x", *PROMPTS], max_prompts=22)))
    assert report.num_prompts == 22
    assert [prompt for prompt, _ in base.asked][:6] == ["x", "x", "y", "y", "prompt 0", "prompt 0"]


def test_few_prompts_are_warned_about(tmp_path: Path) -> None:
    first = next(events_of(tmp_path, prompts=PROMPTS[:5]))
    assert isinstance(first, WarningRaised)
    assert first.code == "few_evaluation_prompts"
    assert first.message.startswith("5 evaluation prompts")


def test_a_caller_that_leaves_early_finds_no_half_report(tmp_path: Path) -> None:
    events = events_of(tmp_path)
    for _ in range(4):
        next(events)
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not (tmp_path / "evaluation").exists()


def test_a_prompt_that_a_reward_cannot_score_is_found_before_training() -> None:
    rewards = {"brightness": Brightness(), "short": OnlyShortPrompts()}
    rehearse(rewards, ["red", "blue", "green"], batch_size=2)
    with pytest.raises(
        AlignmentError, match=r"'short' cannot score a prompt of evaluation.prompts: .*'a long long prompt'"
    ) as e:
        rehearse(rewards, ["red", "blue", "a long long prompt"], batch_size=2)
    assert e.value.code == "prompt_not_scorable"
