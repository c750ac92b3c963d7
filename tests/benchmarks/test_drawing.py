"""Trajectories and reports are drawn as the plain loops draw them, and their rows say how long each part takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import evaluation, rollout
from benchmarks.drawing import TOLERANCE, report
from benchmarks.parts import PartSeconds
from benchmarks.speed_plot import PARTS
from benchmarks.step.cases import CASES
from benchmarks.step.random_models import save_model, save_pairs
from tests.benchmarks.micro import MICRO

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawing")
    save_model(MICRO, folder / "model")
    save_pairs(MICRO, folder / "pairs.parquet", num_pairs=4)
    return folder


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name == "d3po" else [pytest.mark.slow]) for name in rollout.METHODS]
)
def test_a_method_draws_the_images_of_the_plain_loop(method: str, folder: Path) -> None:
    (case,) = [case for case in CASES if case.method == method]
    row = rollout.measure(case, MICRO, folder, "fp32", num_turns=1)
    assert row["images_differ_by"] <= TOLERANCE
    read_before = {"text encoding"}  # of every prompt, in the turn before the timed one
    assert set(row["parts"]["ours"]) == set(PARTS) - read_before
    assert row["ratios"].keys() == row["seconds"].keys() - {"ours"}


@pytest.mark.slow
def test_a_report_has_the_images_of_diffusers_own_pipeline(folder: Path) -> None:
    row = evaluation.measure(MICRO, folder, "fp32", num_prompts=2, num_turns=1)
    assert row["images"] == 8
    assert row["images_differ_by"] <= TOLERANCE
    assert set(row["parts"]["ours"]) == set(PARTS)


def test_other_images_are_an_error(tmp_path: Path) -> None:
    times = {"median": 1.0, "least": 1.0, "most": 1.0}
    row: dict[str, Any] = {
        "case": "ddpo",
        "images_differ_by": 0.1,
        "agrees": False,
        "seconds": {"ours": times},
        "images_per_second": {"ours": 2.0},
        "ratios": {"their batch": 1.0},
        "parts": {"ours": {"denoising": 1.0}},
    }
    with pytest.raises(SystemExit, match="different images"):
        report(iter([row]), tmp_path / "out", size="micro")
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == [row]


def test_the_parts_of_a_turn_are_all_of_it() -> None:
    network, seconds = torch.nn.Linear(2, 2), PartSeconds()
    reward = seconds.timed("reward", lambda x: x.mean())
    with seconds.timing({"denoising": [network]}):
        reward(network(torch.ones(1, 2)))
    assert list(seconds.by_part) == ["denoising", "reward", "the rest"]
    assert not network._forward_hooks, "and nothing stays behind"
    reward(network(torch.ones(1, 2)))
    assert list(seconds.by_part) == ["denoising", "reward", "the rest"]


@pytest.mark.parametrize("name", ["rollout", "evaluation"])
def test_what_is_in_the_docs_drew_the_same_images(name: str) -> None:
    assert all(row["agrees"] for row in json.loads((DOCS / f"{name}.json").read_text())["rows"])
