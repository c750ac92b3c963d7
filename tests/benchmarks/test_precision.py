"""The table of docs/precision.md is what its script prints, and it shows what the page says."""

import json
from pathlib import Path

import pytest
import torch

from alignment_core.load.vae_precision import MAX_LATENT_ERROR
from benchmarks.precision import MODELS, Exactness, exactness, line_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "precision.md").read_text()


@pytest.mark.parametrize("family", list(MODELS))
def test_the_page_has_the_figures_of_the_script(family: str) -> None:
    torch.set_num_threads(1)
    fp16, bf16 = (exactness(family, 1, half) for half in ("fp16", "bf16"))
    assert fp16.logit_error < bf16.logit_error / 4
    assert fp16.logit_rms == pytest.approx(bf16.logit_rms, rel=0.1)
    for row in (fp16, bf16):
        start = line_of(row).rsplit("|", 3)[0]
        (found,) = [line for line in PAGE.splitlines() if line.startswith(start)]
        error = float(found.split("|")[4])
        assert (
            error / 2 < row.logit_error < error * 2
        )  # rounding is another one on another CPU: 1.8 times as much on one


def test_the_tables_have_the_figures_of_the_docs() -> None:
    rows, latents = (json.loads((DOCS / f"{name}.json").read_text()) for name in ("precision", "latent_precision"))
    assert all(line_of(Exactness(**row)) in PAGE for row in rows["rows"])
    assert latents["bound"] == MAX_LATENT_ERROR
    table = PAGE.partition("| family | images encoded |")[2].partition("\n\n")[0].splitlines()[2:]
    figures = [[float(cell) for cell in line.split("|")[3:-1]] for line in table]
    measured = [[row["latent_error"], row["logit_change"], row["logit_rms"]] for row in latents["rows"]]
    assert figures == [pytest.approx(row, rel=0.06) for row in measured]
