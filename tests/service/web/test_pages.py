"""Pages as a browser without scripts reads them: what they show, what they let nobody do, and that a text stays a text."""

import hashlib
import html
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.settings import Settings
from service.store import projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from service.web.assets import STATIC
from tests.service.api.world import CATALOG, Api

TESTS = Path(__file__).parents[2]
PAGE = {"Accept": "text/html"}
INLINE = re.compile(r"""<script(?![^>]*\bsrc=)|<(?:[^>"]|"[^"]*")*\s(?:on\w+|style)=|<style""")
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def client_of(folder: Path, *, keys: bool = False) -> TestClient:
    settings = Settings(data_dir=folder, catalog_path=CATALOG, api_keys_required=keys)
    migrate(settings.resolved_database_url)
    return TestClient(create_app(settings), base_url="http://localhost", headers=PAGE, follow_redirects=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def finished(client: TestClient) -> str:
    """A job with a checkpoint, a picture and a report, whose name is HTML."""
    api = Api(client)
    job_id = api.new_job(name=HOSTILE)
    api.run(job_id)
    return job_id


def test_the_table_has_jobs_with_their_gain_and_links_to_them(client: TestClient, finished: str):
    page = client.get("/").text
    assert f'href="/jobs/{finished}"' in page
    assert "+0.17" in page
    assert "[+0.15, +0.19]" in page


def test_filters_leave_out_what_they_say(client: TestClient, finished: str):
    assert finished in client.get("/?status=succeeded&method=diffusion_dpo&model=shapes").text
    assert finished not in client.get("/?status=failed").text
    assert finished not in client.get("/?metadata=team%3Ddesign").text
    assert client.get("/?status=nonsense").status_code == 422


def test_a_job_shows_its_report_pictures_and_every_form_of_its_checkpoint(client: TestClient, finished: str):
    page = client.get(f"/jobs/{finished}").text
    assert "improved" in page
    (checkpoint,) = client.get(f"/v1/jobs/{finished}/checkpoints").json()["data"]
    for form in ("peft", "diffusers", "kohya", "merged", "single_file"):
        assert f"/v1/checkpoints/{checkpoint['id']}/download?format={form}" in page
    (sample,) = client.get(f"/v1/jobs/{finished}/samples").json()["data"]
    assert f'src="{sample["image_url"]}"' in page


def test_what_users_wrote_stays_text(client: TestClient, finished: str):
    for path in ("/", f"/jobs/{finished}", f"/jobs/{finished}/log", f"/compare?job={finished}", f"/?model={HOSTILE}"):
        page = client.get(path).text
        assert HOSTILE not in page, path
        assert "<img src=x" not in page, path
    assert html.escape("<script>alert(") in client.get("/").text


def test_no_page_may_run_what_is_not_a_file_of_this_server(client: TestClient, finished: str):
    for path in ("/", f"/jobs/{finished}", "/nothing", f"/compare?job={finished}"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert not INLINE.search(answer.text), path


def test_whatever_a_page_loads_is_there_and_kept_for_ever(client: TestClient):
    loaded = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
    assert len(loaded) >= 6
    for address in loaded:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]
    assert client.get("/static/0000000000000000/attune.js").headers["cache-control"] == "no-store"
    assert client.get("/static/x/..%2f..%2fassets.py").status_code == 404


@pytest.mark.parametrize("folder", [STATIC / "vendor", TESTS / "browser" / "vendor"], ids=["served", "of tests"])
def test_scripts_of_others_are_those_of_their_packages(folder: Path):
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {path.name for path in folder.iterdir()} - {"README.md", "SHA256SUMS"}
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name


def test_scripts_are_small():
    assert sum(path.stat().st_size for path in STATIC.rglob("*.js")) < 125_000


def test_what_is_not_there_is_a_page_for_a_person_and_a_problem_for_a_program(client: TestClient):
    assert "<h1>Not Found</h1>" in client.get("/jobs/job_00000000000000000000000000").text
    assert client.get("/nothing", headers={"Accept": "application/json"}).json()["code"] == "not_found"
    assert client.get("/v1/jobs/nothing").json()["code"] == "job_not_found"


def test_a_job_is_cancelled_by_its_button(client: TestClient):
    job_id = Api(client).new_job()
    assert f'action="/jobs/{job_id}/cancel"' in client.get(f"/jobs/{job_id}").text
    answer = client.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    assert "/cancel" not in client.get(f"/jobs/{job_id}").text
    assert client.post(f"/jobs/{job_id}/retention").status_code == 422, "no form asks for anything else"


def test_a_form_of_a_page_is_taken_from_a_browser_that_says_where_it_comes_from(client: TestClient):
    page = client.get("/")
    assert page.headers["referrer-policy"] == "same-origin"  # with `no-referrer` the origin of a form is "null"
    job_id = Api(client).new_job()
    said = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"/jobs/{job_id}/cancel", headers=said).status_code == 303


def test_a_form_that_another_site_sent_changes_nothing(client: TestClient):
    job_id = Api(client).new_job()
    answer = client.post(
        f"/jobs/{job_id}/cancel", headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"


def test_jobs_are_compared_by_what_differs(client: TestClient, finished: str):
    api = Api(client)
    spec = client.get(f"/v1/jobs/{finished}").json()["spec"]
    other = api.new_job(spec={**spec, "method": {**spec["method"], "beta": 123.0}})
    page = client.get(f"/compare?job={finished}&job={other}").text
    assert "method.beta" in page
    assert "123.0" in page
    assert "training.batch_size" not in page
    assert "+0.17" in page


def test_with_keys_a_page_is_for_who_has_signed_in(tmp_path: Path):
    client = client_of(tmp_path, keys=True)
    key, _ = projects.create_key(client.app.state.parts.store, DEFAULT_PROJECT_ID, "page")  # pyright: ignore
    asked = client.get("/?status=queued")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2F%3Fstatus%3Dqueued")
    wrong = client.post("/sign-in", data={"key": "attune_000000000000_wrong", "next": "/"})
    assert wrong.status_code == 401
    assert "not valid" in wrong.text
    signed_in = client.post("/sign-in", data={"key": key, "next": "/?status=queued"})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/?status=queued")
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = client.get("/")
    assert page.status_code == 200
    assert key not in page.text
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', page.text)
    assert client.post("/sign-out", data={"csrf": "0" * 64}).status_code == 403
    assert client.get("/").status_code == 200, "who forged it has signed nobody out"
    assert client.post("/sign-out", data={"csrf": csrf}).headers["location"] == "/sign-in"
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_leads_nobody_elsewhere(elsewhere: str, tmp_path: Path):
    client = client_of(tmp_path, keys=True)
    key, _ = projects.create_key(client.app.state.parts.store, DEFAULT_PROJECT_ID, "page")  # pyright: ignore
    assert client.post("/sign-in", data={"key": key, "next": elsewhere}).headers["location"] == "/"


def test_a_new_job_begins_with_a_spec_that_runs_and_is_started_as_it_stands(client: TestClient):
    dataset = Api(client).ready_dataset()
    page = client.get(f"/jobs/new?method=diffusion_dpo&dataset={dataset}").text
    assert "This can run" in page
    assert "Takes about" in page
    spec = html.unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[0])
    started = client.post("/jobs/new", data={"spec": spec, "name": "from the page", "action": "start"})
    assert started.status_code == 303
    job = client.get(f"/v1{started.headers['location']}").json()
    assert (job["name"], job["status"], job["method"]) == ("from the page", "queued", "diffusion_dpo")


@pytest.mark.parametrize("method", ["mapo", "diffusion_kto", "tailorpo", "d3po", "ddpo", "dpok"])
def test_every_method_has_a_spec_to_begin_with(method: str, client: TestClient):
    Api(client).ready_dataset()
    page = client.get(f"/jobs/new?method={method}").text
    assert "This can run" in page, re.findall(r'class="problem">(.*?)</li>', page)
    assert f"Fields of {method}" in page


def test_what_is_wrong_with_a_spec_is_told_at_its_field_and_nothing_typed_is_lost(client: TestClient):
    dataset = Api(client).ready_dataset()
    typed = json.dumps({"model": "shapes", "method": {"type": "diffusion_dpo", "dataset": dataset, "beta": -1}})
    for action in ("check", "start"):
        page = client.post("/jobs/new", data={"spec": typed, "name": HOSTILE, "action": action}).text
        assert "/method/beta" in page
        assert html.unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[0]) == typed
        assert HOSTILE not in page
    broken = client.post("/jobs/new", data={"spec": "{", "action": "start"})
    assert broken.status_code == 422
    assert "is not JSON" in broken.text


def test_a_job_is_run_again_with_changes(client: TestClient, finished: str):
    page = client.get(f"/jobs/new?from={finished}").text
    spec = json.loads(html.unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[0]))
    assert spec == client.get(f"/v1/jobs/{finished}").json()["spec"]


def test_a_data_set_shows_what_its_check_found(client: TestClient):
    dataset = Api(client).ready_dataset()
    assert f"/jobs/new?dataset={dataset}" in client.get("/datasets").text
    page = client.get(f"/datasets/{dataset}").text
    assert "What the check found" in page
    assert client.get("/datasets/ds_00000000000000000000000000").status_code == 404


def test_a_long_job_shows_its_newest_pictures_and_checkpoints_and_leads_to_older_ones(client: TestClient):
    api = Api(client)
    job_id = api.new_job()
    attempt = api.claim(job_id)
    for step in range(1, 53):
        api.draw_sample(job_id, attempt, step)
        api.save_checkpoint(job_id, attempt, step, {"manifest.json": b"{}"})
    page = client.get(f"/jobs/{job_id}").text
    drawn = [int(step) for step in re.findall(r'data-step="(\d+)"', page)]
    saved = r'<tr id="ckpt_\w+">\s*<td class="numbers">(\d+)'
    assert drawn == list(range(3, 53))
    assert [int(step) for step in re.findall(saved, page)] == list(range(52, 27, -1))
    (older_pictures,) = re.findall(r'href="(\?pictures=\w+)#pictures"', page)
    older = client.get(f"/jobs/{job_id}{older_pictures}").text
    assert re.findall(r'data-step="(\d+)"', older) == ["1", "2"]
    assert "Newest pictures" in older
    (older_both,) = re.findall(r'href="(\?pictures=\w+&amp;checkpoints=\w+)#checkpoints"', older)
    last = client.get(f"/jobs/{job_id}{html.unescape(older_both)}").text
    assert re.findall(r'data-step="(\d+)"', last) == ["1", "2"], "the other list stays where it was"
    assert [int(step) for step in re.findall(saved, last)] == list(range(27, 2, -1))
