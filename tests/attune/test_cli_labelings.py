"""Labelings from the command line and the client, against a real API."""

import json

from attune.client import Client
from tests.attune.test_cli_jobs import Attune, api, attune, url  # noqa: F401  fixtures
from tests.service.api.test_labelings import candidates_of
from tests.service.api.world import Api


def test_pairs_are_judged_and_made_a_data_set(api: Api, attune: Attune, url: str) -> None:  # noqa: F811
    assert attune("labeling", "list").stdout == "no labelings\n"
    candidates_id = candidates_of(api)
    compared = ("--base", "base", "--policy", "aligned")
    made = attune("labeling", "create", candidates_id, "--repeated", "0.25", *compared)
    labeling_id, said = made.stdout.splitlines()
    assert said == "4 pairs, 5 questions"
    assert attune("labeling", "create", candidates_id, "--base", "base").returncode == 1
    with Client(url) as client:
        first, *_ = client.labelings.next(labeling_id, annotator="ada", limit=3).data
        assert client.labelings.vote(labeling_id, first.question, "left", annotator="ada").progress.answered == 1
        assert client.labelings.undo(labeling_id, first.question, annotator="ada").progress.answered == 0
        while found := client.labelings.next(labeling_id, annotator="ada").data:
            client.labelings.vote(labeling_id, found[0].question, "tie", annotator="ada")
    results = json.loads(attune("labeling", "results", labeling_id).stdout)
    assert (results["num_judged_pairs"], results["human"]["ties"]) == (4, 4)
    assert attune("labeling", "dataset", labeling_id).stdout.startswith("ds_")
    assert attune("labeling", "delete", labeling_id).stdout == "deleted\n"
