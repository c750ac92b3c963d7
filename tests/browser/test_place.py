"""What a page that follows by itself leaves as the reader had it: what is open, ticked and typed, and where the focus is."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from alignment_core.events import PhaseChanged, WarningRaised
from service.store import jobs
from service.store.projects import DEFAULT_PROJECT_ID
from tests.browser.conftest import NewReader
from tests.browser.reader import Reader
from tests.browser.site import STEPS, Site, site, start
from tests.service.api.world import step_completed


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as filled:
        yield filled


@pytest.fixture
def reader(served: Site, new_reader: NewReader) -> Reader:
    return new_reader(served.address, viewport={"width": 1280, "height": 900})


def test_what_asks_for_a_second_press_stays_open_while_the_run_goes_on(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="goes on")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    page = reader.page
    page.locator("summary", has_text="Cancel").click()
    sure = page.locator("details[open]").get_by_role("button", name="Cancel")
    sure.focus()
    served.api.say(job_id, attempt, PhaseChanged(phase="evaluating"))
    expect(page.locator(".summary")).to_contain_text("evaluating")
    expect(sure).to_be_visible()
    expect(sure).to_be_focused()


def test_no_question_takes_the_place_of_the_one_that_is_open(served: Site, reader: Reader) -> None:
    """A button that becomes another one under a finger would be pressed."""
    job_id = served.api.new_job(name="is paused meanwhile")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    page = reader.page
    page.locator("summary", has_text="Pause").click()
    jobs.request_pause(served.api.parts.store, DEFAULT_PROJECT_ID, job_id)
    served.api.say(job_id, attempt, WarningRaised(code="few_prompts", message="it goes on", step=9))
    expect(page.locator(".summary .state")).to_have_text("pausing")
    expect(page.locator("details.confirm[open]")).to_have_count(0)


def test_a_fork_that_is_being_typed_outlives_a_new_checkpoint(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="saves often")
    attempt = start(served.api, job_id)
    served.api.save_checkpoint(job_id, attempt, 8)
    reader.open(f"/jobs/{job_id}")
    page = reader.page
    page.locator("#checkpoints summary").click()
    steps = page.locator("#checkpoints details[open]").get_by_label("Steps in all")
    steps.fill("77")
    served.api.save_checkpoint(job_id, attempt, 9)
    expect(page.locator("#checkpoints tbody tr")).to_have_count(2)
    expect(steps).to_be_visible()
    expect(steps).to_have_value("77")
    expect(page.locator("#checkpoints details[open]")).to_have_count(1)


def test_events_come_by_themselves_where_they_are_looked_at(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="tells")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    page = reader.page
    page.get_by_text("Events, newest first").click()
    served.api.say(job_id, attempt, PhaseChanged(phase="evaluating"))
    expect(page.locator("#events tbody tr").first).to_contain_text("phase evaluating")
    expect(page.locator("#events tbody")).to_be_visible()


def test_a_job_that_is_ticked_stays_so_when_the_table_comes_anew(served: Site, reader: Reader) -> None:
    reader.open("/")
    page = reader.page
    page.get_by_role("checkbox").nth(1).check()
    ticked = page.get_by_role("checkbox").nth(1).get_attribute("value")
    made = served.api.new_job(name="came later")
    expect(page.locator(f"#{made}")).to_be_visible()
    assert page.locator("input[name=job]:checked").evaluate_all("all => all.map(one => one.value)") == [ticked]


def test_a_part_of_the_form_that_was_opened_stays_open_when_a_kind_is_chosen_in_it(
    served: Site, reader: Reader
) -> None:
    reader.open(f"/jobs/new?dataset={served.dataset}")
    page = reader.page
    page.locator("#group-adapter > summary").click()
    page.locator("#group-adapter").get_by_label("kind").first.select_option("full")
    expect(page.locator("#as-yaml")).to_contain_text("type: full")
    expect(page.locator("#group-adapter > summary")).to_be_visible()
    expect(page.locator("#group-adapter").get_by_label("kind").first).to_be_visible()


@pytest.mark.parametrize("late", ["htmx.min.js", "hx-sse.min.js", "attune.js"])
def test_a_page_is_live_however_late_a_script_comes(served: Site, reader: Reader, late: str) -> None:
    job_id = served.api.new_job(name="comes late")
    attempt = start(served.api, job_id)

    def wait(route: Route) -> None:
        time.sleep(0.6)
        route.continue_()

    reader.page.route(f"**/{late}*", wait)
    reader.open(f"/jobs/{job_id}")
    served.api.say(job_id, attempt, step_completed(30, STEPS))
    expect(reader.page.locator("#progress")).to_contain_text(f"30/{STEPS}")
