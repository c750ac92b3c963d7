"""The command measures every page there is, and its table says which are over the target."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pages import BEGIN, END, TABLE, main, table_of
from tests.browser.pages import routes

DOCS = Path(__file__).parents[2] / "docs"
WITHOUT_READERS = "/sign-in"  # where keys are asked for; what is measured asks for none


def missing(report: dict[str, Any]) -> list[str]:
    """The pages that nobody asked for."""
    asked = {found["path"].partition("?")[0] for found in report["rows"]}
    patterns = {path: re.sub(r"{\w+}", "[a-z]+_[0-9a-z]{26}", path) for path in routes() if path != WITHOUT_READERS}
    return [path for path, pattern in patterns.items() if not any(re.fullmatch(pattern, one) for one in asked)]


@pytest.mark.slow
def test_the_command_measures_every_page_alone_and_beside_streams(tmp_path: Path) -> None:
    table = tmp_path / "page.md"
    table.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    small = ["--jobs", "40", "--points", "200", "--watchers", "3", "--times", "2"]
    main([str(tmp_path / "pages"), *small, "--table", str(table)])
    report = json.loads((tmp_path / "pages.json").read_text())
    assert missing(report) == []
    assert (report["jobs"], report["points"], report["watchers"]) == (40, 200, 3)
    alone, beside = ([one["what"] for one in report["rows"] if one["watchers"] == count] for count in (0, 3))
    assert alone == beside
    assert all(one["seconds"] > 0 < one["base_seconds"] for one in report["rows"])
    assert table.read_text() == f"before\n{BEGIN}\n{table_of(report)}\n{END}\nafter\n"


def test_what_is_over_the_target_is_bold() -> None:
    rows = [
        {"parts": "embedded", "what": "jobs", "watchers": count, "seconds": seconds, "ratio": 10.0}
        for count, seconds in ((0, 0.1999), (5, 0.2011))
    ]
    of = {"date": "2026-11-29", "machine": "a", "load": 1, "target_ms": 200, "jobs": 1, "points": 1, "watchers": 5}
    last = table_of({**of, "step_every_seconds": 0.1, "rows": rows}).splitlines()[-1]
    assert last == "| jobs | 200 (10) | **201 (10)** |"


def test_the_table_in_the_docs_is_of_the_figures_in_the_docs() -> None:
    report = json.loads((DOCS / "pages.json").read_text())
    assert f"{BEGIN}\n{table_of(report)}\n{END}" in TABLE.read_text()
    assert missing(report) == []
