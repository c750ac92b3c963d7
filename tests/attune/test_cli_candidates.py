"""Candidates from the command line and the client, against a real API."""

import json
from pathlib import Path

from attune.client import Client
from tests.attune.test_cli_jobs import Attune, api, attune, url  # noqa: F401  fixtures
from tests.service.api.test_candidates import PLAY, SPEC, drawn
from tests.service.api.world import PNG, Api


def test_candidates_are_queued_from_a_file_and_their_images_saved(
    api: Api,  # noqa: F811
    attune: Attune,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert attune("candidates", "list").stdout == "no candidates\n"
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    assert attune("candidates", "draw", "spec.json", "--dry-run").stdout == "8 images\n"
    found = attune("candidates", "draw", "spec.json", "--no-wait").stdout.strip()
    drawn(api, found)
    assert json.loads(attune("candidates", "get", found).stdout)["status"] == "succeeded"
    assert attune("candidates", "images", found, "--out", "images").stdout == "8 images in images\n"
    assert (tmp_path / "images" / "aligned" / "00001-01.png").read_bytes() == PNG + b"aligned/00001-01.png"
    assert attune("candidates", "delete", found).stdout == "deleted\n"
    (tmp_path / "bad.json").write_text(json.dumps({**SPEC, "seeds": []}))
    refused = attune("candidates", "draw", "bad.json", "--dry-run")
    assert refused.returncode == 1
    assert "/spec/seeds" in refused.stderr


def test_the_client_plays(api: Api, url: str) -> None:  # noqa: F811
    with Client(url) as client:
        assert client.candidates.playground().is_on
        found = client.candidates.play(PLAY["prompt"], PLAY["contenders"], seed=PLAY["seed"])
        assert (found.status, found.spec["seeds"]) == ("queued", [7])
        assert client.candidates.cancel(found.id).status == "cancelled"
        assert client.candidates.wait(found.id, 5).is_terminal
