"""The plain implementations that a step is measured against say what Attune says, and figures are shown as they are."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.step.cases import CASES, Case, agreement, load, plain_turn, spec_of, steps_of
from benchmarks.step.page import line_of
from benchmarks.step.plain import Plain
from benchmarks.step.sizes import Size, save_model, save_pairs
from benchmarks.train_step import TOLERANCE

MICRO = Size(
    resolution=64,
    photo=80,
    unet={
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "layers_per_block": 1,
    },
    vae={"block_out_channels": (4, 4, 8, 8), "norm_num_groups": 2},
    text={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    batch_size=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    save_model(MICRO, folder / "model")
    save_pairs(MICRO, folder / "pairs.parquet", num_pairs=8)
    return folder


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if number == 0 else [pytest.mark.slow])
        for number, case in enumerate(CASES)
    ],
)
def test_attune_and_the_plain_implementation_give_the_same_loss_and_gradient(case: Case, folder: Path) -> None:
    pairs = pq.read_table(folder / "pairs.parquet").to_pylist()
    ours = load(spec_of(case, MICRO, folder / "model", folder / "pairs.parquet", "fp32"), folder / "cache")
    theirs = Plain(folder / "model", ours.family.device, resolution=MICRO.resolution, is_full=case.is_full)
    agreed = agreement(case, ours, theirs, pairs)
    assert agreed.loss <= TOLERANCE
    assert agreed.gradient <= TOLERANCE
    before = [p.detach().clone() for p in theirs.trained.values()]
    plain_turn(case, MICRO, theirs, pairs)()
    assert any((p != old).any() for p, old in zip(theirs.trained.values(), before, strict=True))
    next(steps_of(ours))


def test_a_row_says_when_the_numbers_differ() -> None:
    row: dict[str, Any] = {
        "case": "mapo, LoRA",
        "ratio": 1.5,
        "target": 1.6,
        "seconds": {"ours": {"median": 2.0}, "plain": {"median": 3.0}},
        "peak_ratio": None,
        "loss_differs_by": 1e-3,
        "gradient_differs_by": 1e-6,
        "agrees": False,
    }
    assert "DIFFERENT NUMBERS" in line_of(row)
    assert line_of({**row, "agrees": True}).startswith(
        "mapo, LoRA: 1.50 times as fast (target 1.6): 2.000 s against 3.000 s"
    )
