"""Chromium and what tests do with it: one browser for the folder, and for each test a reader of its own, who is watched.

The browser is shared by the folder's tests alone, since Playwright keeps an event loop running in the thread of the tests
for as long as it is open, in which nobody else's `asyncio.run` would start.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.reader import Reader
from tests.servers.chromium import CHROMIUM

NewReader = Callable[..., Reader]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no Chromium on PATH"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Remember that a test failed, for its readers to say what they saw."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


FAILED = pytest.StashKey[bool]()
TIMEOUT_MS = 20_000  # on a busy machine


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
    with sync_playwright() as playwright:
        expect.set_options(timeout=TIMEOUT_MS)
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=no_sandbox)
        yield opened
        opened.close()


@pytest.fixture
def new_reader(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewReader]:
    """Open a browser window of its own, with no cookies: `new_reader(address, **settings of the context)`.

    When the test ends well, the window must not have complained; when it fails, its picture and console are in `tmp_path`.
    """
    readers: list[Reader] = []

    def open_window(address: str, **settings: Any) -> Reader:
        context = browser.new_context(base_url=address, locale="en-GB", timezone_id="UTC", **settings)
        context.set_default_timeout(TIMEOUT_MS)
        reader = Reader(context, has_scripts=settings.get("java_script_enabled", True))
        readers.append(reader)
        return reader

    yield open_window
    has_failed = request.node.stash.get(FAILED, True)
    for number, reader in enumerate(readers):
        if has_failed or reader.complaints():
            reader.leave_traces(tmp_path, f"window-{number}")
        reader.context.close()
    if not has_failed:
        assert [complaint for reader in readers for complaint in reader.complaints()] == []
