"""The plain implementations that a step is measured against say what Attune says, and figures are shown as they are."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.step.cases import CASES, Case, agreement, load, plain_turn, spec_of, steps_of
from benchmarks.step.page import BEGIN, END, into_page, line_of, table_of
from benchmarks.step.plain import Plain
from benchmarks.step.random_models import networks_of, save_model, save_pairs
from benchmarks.step.sizes import SD3_VAE, SIZES, TOLERANCE, Size, joint_transformer, xl_unet
from demo.text import new_tokenizer
from tests.benchmarks.micro import MICRO


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


SMALL_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "projection_dim": 16,
}
LARGER = {
    "sdxl": Size(
        kind="sdxl",
        resolution=64,
        photo=80,
        denoiser={**xl_unet((8, 8, 16), (1, 1, 2), 32, 16), "norm_num_groups": 4, "transformer_layers_per_block": 1},
        vae=MICRO.vae,
        text=(SMALL_TEXT, SMALL_TEXT),
        batch_size=2,
    ),
    "sd3": Size(
        kind="sd3",
        resolution=64,
        photo=80,
        denoiser=joint_transformer(2, 1, 2, 16, 48, 32),
        vae={**MICRO.vae, **SD3_VAE},
        text=(SMALL_TEXT, SMALL_TEXT),
        batch_size=2,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", LARGER.values(), ids=LARGER)
def test_a_step_of_a_larger_family_is_that_of_the_plain_implementation(size: Size, tmp_path: Path) -> None:
    case = CASES[0]
    save_model(size, tmp_path / "model")
    save_pairs(size, tmp_path / "pairs.parquet", num_pairs=4)
    ours = load(spec_of(case, size, tmp_path / "model", tmp_path / "pairs.parquet", "fp32"), tmp_path / "cache")
    theirs = Plain(tmp_path / "model", ours.family.device, resolution=size.resolution, is_full=False)
    agreed = agreement(case, ours, theirs, pq.read_table(tmp_path / "pairs.parquet").to_pylist())
    assert agreed.loss <= TOLERANCE
    assert agreed.gradient <= TOLERANCE


# Of the published files; SD 3.5's transformer without its table of positions, which is no parameter.
PUBLISHED = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
    "sd35m": {
        "transformer": 2_243_171_520,
        "vae": 83_819_683,
        "text_encoder": 123_650_304,
        "text_encoder_2": 694_659_840,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_large_size_has_as_many_parameters_as_the_published_model(name: str) -> None:
    with torch.device("meta"):
        networks = networks_of(SIZES[name], new_tokenizer())
    assert {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()} == PUBLISHED[name]


ROW: dict[str, Any] = {
    "case": "mapo, LoRA",
    "ratio": 1.5,
    "target": 1.6,
    "by_flops": None,
    "seconds": {"ours": {"median": 2.0}, "plain": {"median": 3.0}},
    "peak_ratio": None,
    "tensors_ratio": None,
    "loss_differs_by": 1e-3,
    "gradient_differs_by": 1e-6,
    "agrees": False,
}


def test_a_row_says_when_the_numbers_differ() -> None:
    assert "DIFFERENT NUMBERS" in line_of(ROW)
    assert line_of({**ROW, "agrees": True}).startswith(
        "mapo, LoRA: 1.50 times as fast (target 1.6): 2.000 s against 3.000 s"
    )


def test_the_table_of_a_page_is_that_of_the_last_run_and_nothing_else_changes(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"# Before\n{BEGIN}\n| an old row |\n{END}\nafter\n")
    other.write_text("no marks\n")
    found = {"device": "a card", "date": "2026-11-28", "rows": [ROW, {**ROW, "tensors_ratio": 0.7, "peak_ratio": 0.8}]}
    for _ in range(2):
        into_page(found, page)
        into_page(found, other)
    written = page.read_text()
    assert written == f"# Before\n{BEGIN}\n{table_of(found)}\n{END}\nafter\n"
    assert "| mapo, LoRA | **1.50** | 1.6 |  | 2.000 | 3.000 | 0.70 | 0.80 | 1e-03, 1e-06 |" in written
    assert other.read_text() == "no marks\n"
