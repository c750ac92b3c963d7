"""Pages as a browser without scripts reads them: what they show, what they let nobody do, and that a text stays a text."""

import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from httpx2 import Response

from alignment_core.events import PhaseChanged, WarningRaised
from service.main import create_app
from service.settings import Settings
from service.store import projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from service.web.assets import STATIC
from service.web.job_page import EVENTS_AT_ONCE
from service.web.words import duration
from tests.service.api.browsable import browsable, flawed, png, sound
from tests.service.api.world import CATALOG, Api, step_completed

TESTS = Path(__file__).parents[2]
TEMPLATES = STATIC.parent / "templates"
SCRIPT = re.compile(r"<script src=\"\{\{ asset\('([^']+)'")
IMPORT = re.compile(r'^import .* from "([^"]+)";', re.MULTILINE)
PAGE = {"Accept": "text/html"}
INLINE = re.compile(r"""<script(?![^>]*\bsrc=)|<(?:[^>"]|"[^"]*")*\s(?:on\w+|style)=|<style""")
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def client_of(folder: Path, *, keys: bool = False) -> TestClient:
    settings = Settings(data_dir=folder, catalog_path=CATALOG, api_keys_required=keys)
    migrate(settings.resolved_database_url)
    return TestClient(create_app(settings), base_url="http://localhost", headers=PAGE, follow_redirects=False)


def sign_in(client: TestClient, key: str, next: str = "/") -> Response:
    """As a browser does: the form is asked for, and sent back with what it holds."""
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', client.get("/sign-in").text)
    return client.post("/sign-in", data={"key": key, "next": next, "csrf": csrf})


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


@pytest.mark.parametrize(
    ("path", "entry", "current"),
    [
        ("/", "Jobs", "page"),
        ("/jobs/{job}", "Jobs", "true"),
        ("/jobs/{job}/log", "Jobs", "true"),
        ("/compare?job={job}", "Jobs", "true"),
        ("/jobs/new", "New job", "page"),
        ("/datasets", "Data sets", "page"),
        ("/datasets/{dataset}", "Data sets", "true"),
        ("/label", "Label", "page"),
        ("/label/draw", "Label", "true"),
        ("/playground", "Playground", "page"),
        ("/models", "Models", "page"),
        ("/labels", "", ""),
    ],
)
def test_the_navigation_marks_where_a_page_belongs(
    path: str, entry: str, current: str, client: TestClient, finished: str
):
    address = path.format(job=finished, dataset=Api(client).ready_dataset() if "{dataset}" in path else "")
    marked = re.findall(r'aria-current="(\w+)">([^<]+)</a>', client.get(address).text)
    assert marked == ([(current, entry)] if entry else [])


def test_filters_leave_out_what_they_say(client: TestClient, finished: str):
    assert finished in client.get("/?status=succeeded&method=diffusion_dpo&model=shapes").text
    assert finished not in client.get("/?status=failed").text
    assert finished not in client.get("/?metadata=team%3Ddesign").text
    assert client.get("/?status=nonsense").status_code == 422


@pytest.mark.parametrize("metadata", ["team", "=design", "team:design"])
def test_a_filter_that_is_none_is_told_at_its_field_and_leaves_nothing_out(
    metadata: str, client: TestClient, finished: str
):
    page = client.get("/", params={"metadata": metadata})
    assert page.status_code == 422
    assert 'aria-invalid="true" aria-describedby="metadata-wrong"' in page.text
    assert f'value="{metadata}"' in page.text
    assert finished in page.text
    assert client.get("/", params={"metadata": "  "}).status_code == 200


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


def test_pairs_are_marked_in_words_and_what_is_in_their_prompts_stays_text(client: TestClient):
    dataset_id = browsable(Api(client), flawed(HOSTILE))
    page = client.get(f"/datasets/{dataset_id}").text
    assert HOSTILE not in page
    assert page.count(html.escape(HOSTILE).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) == 8
    assert f'href="/datasets/{dataset_id}?problem=contradictory_pairs&amp;row=7#pairs"' in page
    assert f'src="/v1/datasets/{dataset_id}/pairs/1/chosen.jpg" alt="Image chosen in row 1"' in page
    assert re.findall(r"<h3>Row (\d)", page) == list("12345678")
    assert not INLINE.search(page)
    for query, rows in (
        ("?problem=duplicate_rows", "5"),
        ("?row=7", "78"),
        ("?problem=contradictory_pairs&row=3", "7"),
        ("?row=x", "12345678"),
        (f"?row={'9' * 5000}", "12345678"),
        ("?problem=long_prompt", ""),
    ):
        part = client.get(f"/datasets/{dataset_id}{query}")
        assert part.status_code == 200, query
        assert re.findall(r"<h3>Row (\d)", part.text) == list(rows), query


def test_a_data_set_that_was_checked_before_pairs_were_kept_says_so(client: TestClient):
    page = client.get(f"/datasets/{Api(client).ready_dataset()}").text
    assert "this data set was checked before they were kept. Upload it again" in page


def test_single_images_say_whether_they_were_liked(client: TestClient):
    rows = [{"prompt": "p", "image": png(number), "label": number % 2} for number in range(2)]
    page = client.get(f"/datasets/{browsable(Api(client), rows)}").text
    assert re.findall(r"</span>(\w+)</figcaption>", page)[-2:] == ["disliked", "liked"]


@pytest.mark.parametrize(
    ("rows", "only", "never"),
    [
        (sound(2), ("ties", "swapped"), ("likes", "dislikes")),
        ([{"prompt": "p", "image": png(1), "label": 1}], ("likes", "dislikes"), ("ties", "swapped")),
    ],
    ids=["pairs", "single images"],
)
def test_a_data_set_is_counted_by_what_its_kind_has(
    rows: list[dict[str, Any]], only: tuple[str, ...], never: tuple[str, ...], client: TestClient
):
    page = client.get(f"/datasets/{browsable(Api(client), rows)}").text
    counted = set(re.findall(r"<dt>(.*?)</dt>", page))
    assert counted >= {"rows", *only}
    assert counted.isdisjoint(never)


def test_no_page_may_run_what_is_not_a_file_of_this_server(client: TestClient, finished: str):
    for path in ("/", f"/jobs/{finished}", "/nothing", f"/compare?job={finished}"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert not INLINE.search(answer.text), path


def test_whatever_a_page_loads_is_there_and_kept_for_ever(client: TestClient, finished: str):
    pages = [client.get(path).text for path in ("/", "/datasets", f"/jobs/{finished}")]
    loaded = {address for page in pages for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page)}
    assert len(loaded) == 8
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


def scripts_of(template: str) -> set[Path]:
    """What a page of this template loads, with what that imports."""
    texts = [(TEMPLATES / name).read_text() for name in ("base.html", template)]
    found, waiting = set[Path](), [STATIC / name for text in texts for name in SCRIPT.findall(text)]
    while waiting:
        path = waiting.pop().resolve()
        if path not in found:
            found.add(path)
            waiting += [path.parent / name for name in IMPORT.findall(path.read_text())]
    return found


def test_scripts_are_small():
    """Those of others, and all that any one page loads."""
    assert sum(path.stat().st_size for path in (STATIC / "vendor").glob("*.js")) < 100_000
    pages = {path.name: scripts_of(path.name) for path in TEMPLATES.glob("*.html")}
    assert set().union(*pages.values()) == {path.resolve() for path in STATIC.rglob("*.js")}, (
        "what no page loads is dead"
    )
    assert max(sum(one.stat().st_size for one in scripts) for scripts in pages.values()) < 125_000


def test_what_is_not_there_is_a_page_for_a_person_and_a_problem_for_a_program(client: TestClient):
    assert "<h1>Not Found</h1>" in client.get("/jobs/job_00000000000000000000000000").text
    assert client.get("/nothing", headers={"Accept": "application/json"}).json()["code"] == "not_found"
    assert client.get("/v1/jobs/nothing").json()["code"] == "job_not_found"


def test_a_job_tells_its_events_in_words_without_the_steps_and_leads_to_older_ones(client: TestClient):
    api = Api(client)
    job_id = api.new_job()
    attempt = api.claim(job_id)
    for number in range(EVENTS_AT_ONCE):
        api.say(job_id, attempt, step_completed(number + 1, 100))
        api.say(job_id, attempt, WarningRaised(code="few_prompts", message=f"told {number} {HOSTILE}", step=number))
    api.say(job_id, attempt, PhaseChanged(phase="evaluating"))
    page = client.get(f"/jobs/{job_id}").text
    told = page.partition('id="events"')[2].partition("</section>")[0]
    assert "<td>phase changed</td><td>phase evaluating</td>" in told
    assert told.count("<tr ") == EVENTS_AT_ONCE
    assert "step completed" not in told
    assert HOSTILE not in page
    assert f"told {EVENTS_AT_ONCE - 1} " in told
    assert "told 0 " not in told
    (older,) = re.findall(r'rel="next" href="(\?events=\w+)#events"', told)
    earlier = client.get(f"/jobs/{job_id}{older}").text.partition('id="events"')[2]
    assert "told 0 " in earlier
    assert 'id="events-told" open' in earlier


def test_seconds_by_phase_are_told_as_a_picture_and_in_words(client: TestClient, finished: str):
    seconds = client.get(f"/v1/jobs/{finished}").json()["usage"]["seconds"]
    taken = {name: value for name, value in seconds.items() if value > 0}
    assert taken, "the run that is looked at has taken some time"
    page = client.get(f"/jobs/{finished}").text
    legend = page.partition('<ul class="legend">')[2].partition("</ul>")[0]
    told = re.findall(r"</svg> ([a-z ]+) <span class=\"numbers faint\">([^<]+)</span>", legend)
    assert told == [(name.replace("_", " "), duration(value)) for name, value in taken.items()]
    assert page.count('<rect class="phase-') == 2 * len(taken)


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


def test_with_keys_a_page_is_for_who_has_signed_in(tmp_path: Path):
    client = client_of(tmp_path, keys=True)
    key, _ = projects.create_key(client.app.state.parts.store, DEFAULT_PROJECT_ID, "page")  # pyright: ignore
    asked = client.get("/?status=queued")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2F%3Fstatus%3Dqueued")
    wrong = sign_in(client, "attune_000000000000_wrong")
    assert wrong.status_code == 401
    assert "not valid" in wrong.text
    signed_in = sign_in(client, key, "/?status=queued")
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
    assert sign_in(client, key, elsewhere).headers["location"] == "/"


def form_of(page: str) -> dict[str, str]:
    """What a browser would send of the page's form as it stands, but for its buttons."""
    found = _Form()
    found.feed(page[page.index('id="job-form"') - 200 :])
    return found.values


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        name = of.get("name", "")
        if tag == "input" and (of.get("type") != "checkbox" or "checked" in of) and name:
            self.values[name] = of.get("value", "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            self.values.setdefault(self._select, of.get("value", ""))
            if "selected" in of:
                self.values[self._select] = of.get("value", "")
            self._option = "value" not in of and "selected" in of
        elif tag == "textarea":
            self._area = name
            self.values[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self.values[self._area] = self.values[self._area].removeprefix("\n")
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.values[self._area] += data
        elif self._select and self._option and data.strip():
            self.values[self._select] = data.strip()
            self._option = False

    _option = False


def spec_in(page: str) -> Any:
    """What the form of the page would start."""
    return yaml.safe_load(html.unescape(re.findall(r'id="as-yaml">(.*?)</pre>', page, re.DOTALL)[0]))["spec"]


def test_a_new_job_begins_with_a_form_that_runs_and_is_started_as_it_stands(client: TestClient):
    dataset = Api(client).ready_dataset()
    page = client.get(f"/jobs/new?method=diffusion_dpo&dataset={dataset}").text
    assert "This can run" in page
    assert "Takes about" in page
    typed = form_of(page)
    assert typed["f.method.dataset.id"] == dataset
    started = client.post("/jobs/new", data={**typed, "name": "from the page", "action": "start"})
    assert started.status_code == 303
    job = client.get(f"/v1{started.headers['location']}").json()
    assert (job["name"], job["status"], job["method"]) == ("from the page", "queued", "diffusion_dpo")
    again = client.post("/jobs/new", data={**typed, "name": "from the page", "action": "start"})
    assert again.headers["location"] == started.headers["location"], "a button that is pressed twice starts one job"
    other = client.post("/jobs/new", data={**typed, "name": "another", "action": "start"})
    assert (other.status_code, "This form was sent before" in other.text) == (422, True)
    anew = client.post("/jobs/new", data={**form_of(other.text), "action": "start"})
    assert client.get(f"/v1{anew.headers['location']}").json()["name"] == "another"


@pytest.mark.parametrize("method", ["mapo", "diffusion_kto", "tailorpo", "d3po", "ddpo", "dpok"])
def test_every_method_has_a_form_to_begin_with(method: str, client: TestClient):
    Api(client).ready_dataset()
    page = client.get(f"/jobs/new?method={method}").text
    assert "This can run" in page, re.findall(r"data-error=.*?</li>", page)
    assert 'id="field-training-steps"' in page


def test_only_what_was_changed_is_in_the_spec_and_it_is_told_at_its_field_where_it_is_wrong(client: TestClient):
    dataset = Api(client).ready_dataset()
    typed = form_of(client.get(f"/jobs/new?dataset={dataset}").text)
    changed = {**typed, "f.method.beta": "-1", "f.adapter.rank": "4", "name": HOSTILE, "action": "start"}
    answer = client.post("/jobs/new", data=changed)
    assert answer.status_code == 422
    (told,) = re.findall(r'<p class="error" id="field-method-beta-error">(.*?)</p>', answer.text)
    assert "0" in told
    assert 'id="group-method" open' in answer.text
    assert HOSTILE not in answer.text
    assert form_of(answer.text)["name"] == HOSTILE
    assert spec_in(answer.text)["adapter"] == {"type": "lora", "rank": 4}
    assert "guards" not in spec_in(answer.text)


def test_another_method_keeps_what_was_typed(client: TestClient):
    Api(client).ready_dataset()
    typed = form_of(client.get("/jobs/new?method=diffusion_dpo").text)
    changed = {
        **typed,
        "f.training.steps": "33",
        "f.method.type": "tailorpo",
        "f.adapter.type": "full",
        "action": "fields",
    }
    page = client.post("/jobs/new", data=changed).text
    spec = spec_in(page)
    assert (spec["training"]["steps"], spec["method"]["type"]) == (33, "tailorpo")
    assert spec["method"]["prompts"], "what the other method cannot do without is there"
    assert "f.method.dataset.type" not in form_of(page)
    assert "beta" not in spec["method"], "the default of another method is nothing that was typed"
    assert spec["adapter"] == {"type": "full"}


def test_a_preset_is_laid_over_what_was_typed(client: TestClient):
    Api(client).ready_dataset()
    typed = form_of(client.get("/jobs/new?method=diffusion_dpo").text)
    page = client.post("/jobs/new", data={**typed, "f.seed": "5", "preset": "quick"}).text
    assert (spec_in(page)["training"]["steps"], spec_in(page)["seed"]) == (20, 5)
    assert "arXiv 2311.12908" in page


def test_the_json_is_another_way_to_write_the_same(client: TestClient):
    Api(client).ready_dataset()
    first = client.get("/jobs/new?method=diffusion_dpo").text
    as_json = client.post("/jobs/new", data={**form_of(first), "show": "json"}).text
    typed = form_of(as_json)
    assert json.loads(typed["spec"]) == spec_in(first)
    spec = {**json.loads(typed["spec"]), "seed": 9}
    back = client.post("/jobs/new", data={**typed, "spec": json.dumps(spec), "show": "form"}).text
    assert form_of(back)["f.seed"] == "9"
    assert spec_in(back) == spec
    unknown = client.post("/jobs/new", data={**typed, "spec": json.dumps({**spec, "colour": 1}), "show": "form"}).text
    assert json.loads(form_of(unknown)["spec"])["colour"] == 1, "what no field can hold stays in sight"


def test_what_is_wrong_with_json_is_told_and_nothing_typed_is_lost(client: TestClient):
    dataset = Api(client).ready_dataset()
    typed = json.dumps({"model": "shapes", "method": {"type": "diffusion_dpo", "dataset": dataset, "beta": -1}})
    for action in ("check", "start"):
        page = client.post("/jobs/new", data={"spec": typed, "name": HOSTILE, "action": action}).text
        assert "/method/beta" in page
        assert form_of(page)["spec"] == typed
        assert HOSTILE not in page
    broken = client.post("/jobs/new", data={"spec": "{", "action": "start"})
    assert broken.status_code == 422
    assert "is not JSON" in broken.text


def test_prompts_that_are_html_stay_text_in_the_form(client: TestClient):
    Api(client).ready_dataset()
    typed = form_of(client.get("/jobs/new?method=tailorpo").text)
    page = client.post("/jobs/new", data={**typed, "f.method.prompts": f"{HOSTILE}\n</textarea>x"}).text
    assert HOSTILE not in page
    assert "</textarea>x" not in page
    assert not INLINE.search(page)
    assert form_of(page)["f.method.prompts"] == f"{HOSTILE}\n</textarea>x"


def test_a_job_is_run_again_with_changes(client: TestClient, finished: str):
    page = client.get(f"/jobs/new?from={finished}").text
    spec = client.get(f"/v1/jobs/{finished}").json()["spec"]
    assert form_of(page)["f.method.type"] == spec["method"]["type"]
    resolved = client.post("/v1/jobs/validate", json={"spec": spec_in(page)}).json()["resolved_spec"]
    assert resolved == client.post("/v1/jobs/validate", json={"spec": spec}).json()["resolved_spec"]


def test_a_new_job_begins_on_a_checkpoint(client: TestClient, finished: str):
    (checkpoint,) = client.get(f"/v1/jobs/{finished}/checkpoints").json()["data"]
    typed = form_of(client.get(f"/jobs/new?checkpoint={checkpoint['id']}").text)
    assert typed["f.start.lora.id"] == checkpoint["id"]
    assert typed["f.start._on"] == "true"
    assert client.get("/jobs/new?checkpoint=ckpt_00000000000000000000000000").status_code == 404


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
    assert page.count('data-checkpoint="ckpt_') == 50, "of steps whose checkpoints are on other pages as well"
    assert [int(step) for step in re.findall(saved, page)] == list(range(52, 27, -1))
    (older_pictures,) = re.findall(r'href="(\?pictures=\w+)#pictures"', page)
    older = client.get(f"/jobs/{job_id}{older_pictures}").text
    assert re.findall(r'data-step="(\d+)"', older) == ["1", "2"]
    assert "Newest pictures" in older
    (older_both,) = re.findall(r'href="(\?pictures=\w+&amp;checkpoints=\w+)#checkpoints"', older)
    last = client.get(f"/jobs/{job_id}{html.unescape(older_both)}").text
    assert re.findall(r'data-step="(\d+)"', last) == ["1", "2"], "the other list stays where it was"
    assert [int(step) for step in re.findall(saved, last)] == list(range(27, 2, -1))
