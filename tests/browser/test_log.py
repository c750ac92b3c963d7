"""The log of a run in a real browser: it goes on by itself, and takes nobody's place or selection away."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from service.store import leases, outputs
from tests.browser.axe import grave_faults
from tests.browser.conftest import NewReader
from tests.browser.markup import marked, smuggled
from tests.browser.site import STEPS, Site, site, start
from tests.service.api.world import step_completed

SELECTED = "getSelection().toString()"
TOP = "document.querySelector('pre.log').scrollTop"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as filled:
        yield filled


def test_a_log_goes_on_and_leaves_what_is_read_and_selected_as_it_is(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport={"width": 1280, "height": 900})
    page, api = reader.page, served.api
    job_id = api.new_job(name="writes")
    attempt = start(api, job_id)
    written = "".join(f"line {number}\n" for number in range(200))
    outputs.put_log(api.parts.store, job_id, attempt, written)
    reader.open(f"/jobs/{job_id}/log")
    log = page.locator("pre.log")
    page.evaluate("""() => {
        const log = document.querySelector("pre.log");
        log.scrollTop = 300;
        const range = document.createRange();
        range.setStart(log.firstChild, 7);
        range.setEnd(log.firstChild, 20);
        getSelection().addRange(range);
    }""")
    selected = page.evaluate(SELECTED)
    assert selected
    outputs.put_log(api.parts.store, job_id, attempt, f"{written}{marked('new line')}\nhal")
    with page.expect_response(lambda answer: "seen=" in answer.url) as asked:
        api.say(job_id, attempt, step_completed(STEPS // 2, STEPS))
    assert "line 199" not in asked.value.text(), "what is there is not sent again"
    expect(log).to_contain_text(marked("new line"))
    assert smuggled(page) == 0
    assert (page.evaluate(SELECTED), page.evaluate(TOP)) == (selected, 300)
    page.evaluate("const log = document.querySelector('pre.log'); log.scrollTop = log.scrollHeight")
    before = page.evaluate(TOP)
    outputs.put_log(api.parts.store, job_id, attempt, f"{written}{marked('new line')}\nhalf\n{'more' + chr(10)}the end")
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    expect(log).to_contain_text("half\nmore\nthe end")
    assert page.evaluate(TOP) > before, "who reads the end goes on reading it"
    assert log.evaluate("one => one.textContent") == f"{written}{marked('new line')}\nhalf\nmore\nthe end"
    assert grave_faults(page) == []


def test_the_first_line_comes_to_whom_waits_for_it(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport={"width": 390, "height": 844})
    job_id = served.api.new_job(name="begins")
    reader.open(f"/jobs/{job_id}/log")
    expect(reader.page.locator("main")).to_contain_text("No worker has written anything yet.")
    attempt = start(served.api, job_id)
    outputs.put_log(served.api.parts.store, job_id, attempt, "loading\n")
    served.api.say(job_id, attempt, step_completed(STEPS // 2, STEPS))
    expect(reader.page.locator("pre.log")).to_have_text("loading\n")
    expect(reader.page.locator("main")).not_to_contain_text("No worker has written anything yet.")
    assert reader.width_beyond_the_screen() == 0
