"""What every form of a page that changes something has: a token of the browser's own, without which it does nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.settings import Settings
from service.store import projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from service.web.things import THINGS, Kind
from tests.browser.pages import routes
from tests.service.api.test_candidates import SPEC, drawn
from tests.service.api.test_labelings import created
from tests.service.api.world import CATALOG, Api, spec_for
from tests.service.web.test_pages import PAGE, TEMPLATES, sign_in

FORM = re.compile(r'<form[^>]*method="post"[^>]*>.*?</form>', re.DOTALL)
TOKEN = re.compile(r'<input type="hidden" name="csrf" value="\{\{ (?:csrf|token) \}\}">')
BY_SCRIPT = "datasets.html"
"""Whose form sends its file piece by piece, with the token in a header."""

BEFORE_A_SESSION = ("/sign-in", "/label/{labeling_id}/name")
"""What opens one, and what remembers a name in the browser where nobody signs in."""


def keyed(folder: Path, scheme: str = "http", **settings: Any) -> tuple[TestClient, str]:
    """A browser of which a key is wanted, and one."""
    given = Settings(data_dir=folder, catalog_path=CATALOG, api_keys_required=True, **settings)
    migrate(given.resolved_database_url)
    app = create_app(given)
    browser = TestClient(app, base_url=f"{scheme}://localhost", headers=PAGE, follow_redirects=False)
    return browser, projects.create_key(app.state.parts.store, DEFAULT_PROJECT_ID, "reader")[0]


def test_every_form_that_changes_something_sends_a_token() -> None:
    forms = {path.name: FORM.findall(path.read_text()) for path in TEMPLATES.glob("*.html")}
    assert sum(map(len, forms.values())) >= 14, "or they are written otherwise, and none is looked at"
    for name, found in forms.items():
        for form in found:
            assert len(TOKEN.findall(form)) == (0 if name == BY_SCRIPT else 1), (name, form[:200])
    (by_script,) = forms[BY_SCRIPT]
    assert 'data-csrf="{{ csrf }}"' in by_script


def test_no_form_does_anything_without_its_token(tmp_path: Path) -> None:
    browser, key = keyed(tmp_path, playground=True)
    api = Api(TestClient(browser.app, base_url="http://localhost", headers={"Authorization": f"Bearer {key}"}))
    job_id, ended = api.new_job(), api.new_job()
    api.run(ended)
    candidates_id = api.client.post("/v1/candidates", json={"spec": SPEC}).json()["id"]
    drawn(api, candidates_id)
    ids = {"job_id": job_id, "checkpoint_id": api.checkpoint_id(ended), "candidates_id": candidates_id}
    ids["labeling_id"] = created(api, candidates_id)
    dataset_id = api.ready_dataset()
    api.client.post("/v1/promotions", json={"checkpoint_id": ids["checkpoint_id"], "alias": "liked"}).raise_for_status()
    things: dict[Kind, str] = {
        "jobs": ended,
        "datasets": dataset_id,
        "labelings": ids["labeling_id"],
        "aliases": "liked",
    }
    things |= {"candidates": candidates_id, "plays": candidates_id}
    assert things.keys() == THINGS.keys()
    draw = {"model": "shapes", "prompts": "a star", "seeds_per_prompt": "2"}
    asked: dict[str, dict[str, str]] = {
        "/sign-out": {},
        "/jobs/new": {"view": "json", "spec": json.dumps(spec_for(dataset_id)), "action": "start"},
        **{f"/jobs/{{job_id}}/{verb}": {} for verb in ("cancel", "pause", "resume", "checkpoint", "sample", "probe")},
        "/jobs/{job_id}/checkpoints/{checkpoint_id}/fork": {"steps": "100"},
        "/label/draw": {**draw, "action": "draw"},
        "/label/draws/{candidates_id}": {"num_pairs": "2"},
        "/label/draws/{candidates_id}/cancel": {},
        "/label/{labeling_id}/votes": {"choice": "left", "question": "0"},
        "/label/{labeling_id}/dataset": {},
        "/playground": {"prompt": "a star", "model": "shapes"},
        "/playground/{candidates_id}/cancel": {},
        "/models": {"checkpoint_id": ids["checkpoint_id"]},
        **{f"/delete/{kind}/{thing_id}": {} for kind, thing_id in things.items()},
    }
    known = {re.sub(r"^/jobs/\{job_id\}/[a-z]+$", "/jobs/{job_id}/{verb}", path) for path in asked}
    known = {re.sub(r"^/delete/\w+/\w+$", "/delete/{kind}/{thing_id}", path) for path in known}
    assert known == set(routes("POST")) - set(BEFORE_A_SESSION), "a form that is new is asked here as well"
    assert sign_in(browser, key).status_code == 303
    before = everything(api)
    for path, fields in asked.items():
        for csrf in ({}, {"csrf": "0" * 64}):
            answer = browser.post(path.format(**ids), data={**fields, **csrf})
            assert answer.status_code == 403, (path, answer.status_code, answer.text[-400:])
    assert everything(api) == before


def everything(api: Api) -> dict[str, Any]:
    """What forms could have changed; that the browser is still signed in as well."""
    lists = ("jobs", "candidates", "labelings", "datasets", "aliases", "sessions")
    return {name: api.client.get(f"/v1/{name}").json()["data"] for name in lists}


def test_nobody_is_signed_in_by_a_page_that_cannot_read_the_form(tmp_path: Path) -> None:
    browser, key = keyed(tmp_path)
    for csrf in ({}, {"csrf": "0" * 64}):
        refused = browser.post("/sign-in", data={"key": key, "next": "/datasets", **csrf})
        assert refused.status_code == 403
        assert "attune_session" not in refused.headers["set-cookie"]
        assert 'name="next" value="/datasets"' in refused.text
    stranger = TestClient(browser.app, base_url="http://localhost", headers=PAGE, follow_redirects=False)
    (others,) = re.findall(r'name="csrf" value="(\w+)"', stranger.get("/sign-in").text)
    assert browser.post("/sign-in", data={"key": key, "csrf": others}).status_code == 403
    shown = [browser.get("/sign-in").text for _ in range(2)]
    first, second = (re.findall(r'name="csrf" value="(\w+)"', page)[0] for page in shown)
    assert first == second, "two tabs show the same"
    assert browser.post("/sign-in", data={"key": key, "csrf": first}).status_code == 303


@pytest.mark.parametrize(
    ("scheme", "settings"), [("https", {}), ("http", {"public_url": "https://attune.example.org"})]
)
def test_behind_https_no_cookie_goes_without_it(scheme: str, settings: dict[str, str], tmp_path: Path) -> None:
    """Whether the proxy says so with each request, or the operator once and for all."""
    browser, key = keyed(tmp_path, scheme, **settings)
    shown = browser.get("/sign-in")
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', shown.text)
    sent = shown.headers["set-cookie"].partition(";")[0]
    signed_in = browser.post("/sign-in", data={"key": key, "csrf": csrf}, headers={"Cookie": sent})
    assert signed_in.status_code == 303
    for name, cookie in (("sign_in", shown.headers["set-cookie"]), ("session", signed_in.headers["set-cookie"])):
        assert cookie.startswith(f"__Host-attune_{name}=")
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= set(cookie.lower().split("; "))
        assert "domain" not in cookie.lower()


def test_who_tries_many_keys_is_told_to_wait(tmp_path: Path) -> None:
    browser, key = keyed(tmp_path, sign_ins_per_minute=3)
    for _ in range(3):
        assert sign_in(browser, "attune_000000000000_guess").status_code == 401
    refused = sign_in(browser, key)
    assert refused.status_code == 429
    assert "at most 3 sign-ins a minute" in refused.text
    assert "attune_session" not in refused.headers["set-cookie"]
