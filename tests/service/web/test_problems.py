"""Where the page of a problem leads: to what it is about, to where its reader came from, and nowhere that somebody else wrote."""

import re

import pytest

from service.web.things import FORMS, LISTS, Way, ways_out
from tests.browser.pages import routes
from tests.service.api.world import Api, spec_for
from tests.service.web.test_pages import client_of

JOB = f"job_{26 * '0'}"
DATASET = f"ds_{26 * '0'}"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(client_of(tmp_path_factory.mktemp("problems")))


def ways_on(page: str) -> list[tuple[str, str]]:
    nav = page.partition('aria-label="Where to go from here"')[2].partition("</nav>")[0]
    return re.findall(r'href="([^"]+)">([^<]+)</a>', nav)


def test_who_is_refused_is_led_back_to_the_thing_and_to_its_list(api: Api) -> None:
    dataset_id = api.ready_dataset()
    job_id = api.new_job(spec=spec_for(dataset_id))
    refused = api.client.post(f"/delete/datasets/{dataset_id}")
    assert refused.status_code == 409
    assert ways_on(refused.text) == [(f"/datasets/{dataset_id}", "The data set"), ("/datasets", "All data sets")]
    refused = api.client.post(f"/jobs/{job_id}/resume")
    assert refused.status_code == 409
    assert ways_on(refused.text) == [(f"/jobs/{job_id}", "The job"), ("/", "All jobs")]


def test_what_is_not_there_leads_to_the_list_of_its_kind(api: Api) -> None:
    for kind, listed_at in (("datasets", "/datasets"), ("jobs", "/"), ("playground", "/playground")):
        page = api.client.get(f"/{kind}/nothing")
        assert page.status_code == 404
        assert ways_on(page.text) == [(listed_at, LISTS[listed_at])], kind
    assert ways_on(api.client.get("/no-such-page").text) == [("/", "All jobs")]


def test_it_leads_back_to_where_the_reader_came_from_on_this_server_alone(api: Api) -> None:
    job_id = api.new_job()
    missing = {"checkpoint_id": f"ckpt_{26 * '0'}"}
    came = {
        f"http://localhost/jobs/{job_id}?pictures=smpl_1": [(f"/jobs/{job_id}", "The job")],
        'http://localhost/nowhere"><b>': [("/", "All jobs")],
        f"https://elsewhere.example/jobs/{job_id}": [],
        "http://localhost//elsewhere.example/": [("/", "All jobs")],
        "javascript:alert(1)": [],
    }
    for referer, before in came.items():
        page = api.client.post("/models", data=missing, headers={"Referer": referer.encode().decode("latin-1")})
        assert page.status_code >= 400
        assert ways_on(page.text) == [*before, ("/models", "All models")], referer


@pytest.mark.parametrize("identifier", ["..", "a b", '"><script>', "%2F%2Fevil.example", "x" * 100, "é"])
def test_what_is_no_id_is_never_a_part_of_a_link(identifier: str) -> None:
    for path in (f"/jobs/{identifier}", f"/delete/datasets/{identifier}", f"/label/draws/{identifier}/cancel"):
        found = ways_out(path, path, "", is_read=False)
        assert all(way.path in LISTS for way in found), found


def test_what_another_tab_has_deleted_is_no_way_out() -> None:
    page = f"/jobs/{JOB}"
    assert ways_out(f"{page}/cancel", page, "job_not_found", is_read=False) == [Way("/", "All jobs")]
    assert ways_out(f"{page}/log", page, "", is_read=True)[0] == Way(page, "The job")
    elsewhere = ways_out(f"/datasets/{DATASET}", page, "dataset_not_found", is_read=True)
    assert elsewhere == [Way(page, "The job"), Way("/datasets", "All data sets")]


@pytest.mark.parametrize("kind", ["jobs", "datasets", "candidates", "plays", "labelings", "aliases"])
def test_every_way_is_a_page_that_there_is(kind: str) -> None:
    pages = {re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in routes()}
    found = ways_out(f"/delete/{kind}/some_id", "", "", is_read=False)
    for path in [*(way.path for way in found), *LISTS, *FORMS]:
        assert any(page.fullmatch(path) for page in pages), path
    assert len(found) == (1 if kind == "aliases" else 2)
