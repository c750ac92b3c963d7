"""Evaluations from the command line, against a real API."""

import json
from pathlib import Path

import pytest

from tests.attune.test_cli_jobs import Attune, api, attune, url  # noqa: F401  fixtures
from tests.service.api.test_evaluations import SPEC, run
from tests.service.api.world import Api


def test_an_evaluation_is_queued_from_a_file_and_its_table_names_the_anchor(
    api: Api,  # noqa: F811
    attune: Attune,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert attune("evaluation", "list").stdout == "no evaluations\n"
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    found = attune("evaluate", "spec.json", "--no-wait").stdout.strip()
    run(api, found)
    monkeypatch.setenv("COLUMNS", "140")
    wide = attune("evaluation", "report", found).stdout
    header, _, first, *_ = wide.splitlines()
    assert header.split() == ["contender", "judge", "base", "mean", "gain", "interval", "p", "won"]
    assert first.split()[:3] == ["aligned", "*", "colorfulness"]
    monkeypatch.setenv("COLUMNS", "80")
    narrow = attune("evaluation", "report", found).stdout
    assert "…" not in narrow
    assert set(first.split()[3:]) <= set(narrow.split()), "every figure is whole"


def test_the_anchor_has_no_page_and_the_answer_says_who_has(
    api: Api,  # noqa: F811
    attune: Attune,  # noqa: F811
    tmp_path: Path,
) -> None:
    found = api.client.post("/v1/evaluations", json={"spec": SPEC}).json()["id"]
    run(api, found)
    refused = attune("evaluation", "report", found, "--html", "page.html", "--contender", "base")
    assert refused.returncode == 1
    assert "those that are compared with 'base' are aligned" in refused.stderr
    assert not (tmp_path / "page.html").exists()
    saved = attune("evaluation", "report", found, "--html", "page.html", "--contender", "aligned")
    assert saved.stdout.splitlines()[-1] == "page.html", "it says what it saved"
    assert (tmp_path / "page.html").exists()


def test_a_file_that_is_no_spec_is_told_by_its_name(attune: Attune, tmp_path: Path) -> None:  # noqa: F811
    for text, what in (("contenders: [1,\n", "is not well formed"), ("- a\n", "must hold a mapping")):
        (tmp_path / "spec.yaml").write_text(text)
        refused = attune("evaluate", "spec.yaml")
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"spec.yaml {what}")
        assert "Traceback" not in refused.stderr


def test_an_evaluation_is_looked_at_without_being_queued(attune: Attune, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    told = attune("evaluate", "spec.json", "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "images" in told.stdout
    (tmp_path / "odd.json").write_text(json.dumps({**SPEC, "rewards": ["nobody"]}))
    refused = attune("evaluate", "odd.json", "--dry-run")
    assert refused.returncode == 1
    assert refused.stderr.startswith("odd.json cannot be used:\n  /spec/rewards")
    assert attune("evaluation", "list").stdout == "no evaluations\n"


def test_an_evaluation_is_paused_resumed_cancelled_and_deleted(attune: Attune, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    found = attune("evaluate", "spec.json", "--no-wait").stdout.strip()
    steps = (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("delete", "deleted"))
    assert [attune("evaluation", verb, found).stdout for verb, _ in steps] == [f"{state}\n" for _, state in steps]
    gone = attune("evaluation", "pause", found)
    assert (gone.returncode, "[evaluation_not_found]" in gone.stderr) == (1, True)
