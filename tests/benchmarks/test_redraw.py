"""Every plot of the docs is drawn from the figures beside it, and by one command."""

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.redraw import DOCS, PLOTS, main, redraw

SHOWN = "\n".join(page.read_text() for folder in (DOCS, DOCS.parent / "benchmarks") for page in folder.glob("*.md"))
OWN_COMMANDS = {"reproduction"}  # benchmarks.reproduction --render-only
COMMITTED = [name for name in PLOTS if (DOCS / f"{name}.json").exists()]


@pytest.mark.parametrize("name", COMMITTED)
def test_the_plot_is_that_of_the_figures_beside_it(name: str, tmp_path: Path) -> None:
    redraw(name, DOCS, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == (DOCS / f"{name}.svg").read_bytes()


@pytest.mark.parametrize("name", COMMITTED)
def test_a_page_shows_it(name: str) -> None:
    assert re.search(rf"!\[[^\]]+\]\((?:\.\./docs/)?{name}\.svg\)", SHOWN)


def test_every_plot_has_its_figures_and_can_be_drawn_again() -> None:
    assert {file.stem for file in DOCS.glob("*.svg")} == {*COMMITTED} | OWN_COMMANDS


def test_without_names_those_in_the_folder_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(DOCS / "decoding.json", tmp_path)
    main(["--docs", str(tmp_path)])
    assert capsys.readouterr().out == "decoding.svg\n"
    assert (tmp_path / "decoding.svg").read_bytes() == (DOCS / "decoding.svg").read_bytes()


def test_a_name_without_a_plot_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no plot speed; there are performance, caching" in capsys.readouterr().err


def test_a_setting_that_ran_out_of_memory_has_no_bar(tmp_path: Path) -> None:
    """No card was had, so no figures of it lie in the docs."""
    fits = {"batch_size": 4, "estimated_gib": 30.5, "peak_gib": 31.25}
    failed = {"batch_size": 8, "failed": "CUDA out of memory"}
    (tmp_path / "peak.json").write_text(json.dumps({"size": "sdxl", "results": [fits, failed]}))
    redraw("peak", tmp_path, tmp_path / "peak.svg")
    drawn = (tmp_path / "peak.svg").read_text()
    assert "30.5" in drawn
    assert "31.2" in drawn
    assert "8 pairs (failed)" in drawn
