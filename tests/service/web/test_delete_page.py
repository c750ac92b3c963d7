"""Things that go for good by a button, those that something still needs, and what another site may not ask for."""

import html
import re
from pathlib import Path

import pytest

from tests.service.api.test_candidates import drawn
from tests.service.api.test_labelings import created
from tests.service.api.world import Api, spec_for
from tests.service.web.test_label_pages import DRAW, made
from tests.service.web.test_pages import client_of


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(client_of(tmp_path_factory.mktemp("delete")))


def form_on(api: Api, page: str) -> str:
    """Where the page's button to delete sends its form."""
    (action,) = re.findall(r'action="(/delete/[^"]+)"', api.client.get(page).text)
    return action


def test_what_has_ended_is_deleted_by_the_button_of_its_page(api: Api) -> None:
    job_id, dataset_id = api.new_job(), api.ready_dataset()
    api.run(job_id)
    candidates_id = made(api.client, "/label/draw", **DRAW).rpartition("/")[2]
    drawn(api, candidates_id)
    labeling_id = created(api, candidates_id)
    pages = {  # the labeling first, since it shows the pictures
        f"/label/{labeling_id}/results": ("labelings", labeling_id, "/label"),
        f"/label/draws/{candidates_id}": ("candidates", candidates_id, "/label"),
        f"/jobs/{job_id}": ("jobs", job_id, "/"),
        f"/datasets/{dataset_id}": ("datasets", dataset_id, "/datasets"),
    }
    for page, (kind, thing_id, listed_at) in pages.items():
        answer = api.client.post(form_on(api, page), headers={"Origin": "http://localhost"})
        assert (answer.status_code, answer.headers["location"]) == (303, listed_at), page
        assert api.client.get(f"/v1/{kind}/{thing_id}").status_code == 404, page
        assert thing_id not in api.client.get(listed_at).text, page


def test_a_drawing_of_the_playground_goes_by_its_button_and_leads_back_there(api: Api) -> None:
    place = made(api.client, "/playground", prompt="a star", model="shapes")
    candidates_id = place.rpartition("/")[2]
    assert "/delete/" not in api.client.get(place).text, "before it is drawn it can be stopped"
    drawn(api, candidates_id)
    answer = api.client.post(form_on(api, place), headers={"Origin": "http://localhost"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/playground")
    assert api.client.get(f"/v1/candidates/{candidates_id}").status_code == 404
    assert candidates_id not in api.client.get("/playground").text


def test_what_is_needed_stays_and_the_page_says_by_what(api: Api) -> None:
    dataset_id = api.ready_dataset()
    api.new_job(spec=spec_for(dataset_id))
    answer = api.client.post(form_on(api, f"/datasets/{dataset_id}"), headers={"Accept": "text/html"})
    assert answer.status_code == 409
    assert "cannot be deleted" in html.unescape(answer.text)
    assert api.client.get(f"/v1/datasets/{dataset_id}").status_code == 200


def test_what_runs_has_no_button_to_delete_it(api: Api) -> None:
    job_id = api.new_job()
    assert "/delete/" not in api.client.get(f"/jobs/{job_id}").text
    refused = api.client.post(f"/delete/jobs/{job_id}", headers={"Accept": "text/html"})
    assert (refused.status_code, "cancel it first" in refused.text) == (409, True)


def test_a_form_of_another_site_deletes_nothing(api: Api) -> None:
    dataset_id = api.ready_dataset()
    elsewhere = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    assert api.client.post(f"/delete/datasets/{dataset_id}", headers=elsewhere).status_code == 403
    assert api.client.get(f"/v1/datasets/{dataset_id}").status_code == 200


def test_with_keys_nobody_deletes_who_has_not_signed_in(tmp_path: Path) -> None:
    api = Api(client_of(tmp_path, keys=True))
    answer = api.client.post(f"/delete/datasets/ds_{26 * '0'}", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")
