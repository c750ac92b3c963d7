"""The reference for people needs nothing but the service itself."""

import re

import pytest

from tests.service.api.world import Api, assert_problem


def test_the_reference_and_all_that_it_loads_comes_from_here(api: Api):
    page = api.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in re.sub(r"window\.location\.\w+", "", re.sub(r"<!--.*?-->", "", page.text))
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        asset = api.client.get(path)
        assert asset.status_code == 200
        assert len(asset.content) > 1000
    assert "'/openapi.json'" in page.text
    assert '"validatorUrl": null' in page.text
    assert api.client.get("/openapi.json").json()["openapi"].startswith("3.1")


@pytest.mark.parametrize("name", ["nope.js", "..%2Fcore.py", "redoc.standalone.js"])
def test_nothing_else_lies_there(api: Api, name: str):
    assert_problem(api.client.get(f"/docs/{name}"), 404, "not_found" if "%2F" in name else "file_not_found")


def test_a_reference_behind_a_proxys_prefix_loads_from_there(api: Api):
    api.client.app.root_path = "/attune"  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    page = api.client.get("/docs").text
    assert 'src="/attune/docs/swagger-ui-bundle.js"' in page
    assert "'/attune/openapi.json'" in page
