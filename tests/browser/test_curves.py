"""Curves as a reader meets them: which come first, how a part of them is looked at, and that no point is lost."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Route, expect

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


@pytest.fixture
def training(served: Site) -> tuple[str, int]:
    """A job that has taken nine steps, and its attempt."""
    job_id = served.api.new_job(name="has curves")
    return job_id, start(served.api, job_id)


def loss_of(reader: Reader) -> Locator:
    return reader.page.locator(".curve", has=reader.page.get_by_text("Loss", exact=True))


def shows(reader: Reader, share: float, step: str | re.Pattern[str]) -> None:
    """That the legend of the loss says this step of the place under a cursor that is so far from the left."""
    area = loss_of(reader).locator(".u-over")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    reader.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    expect(loss_of(reader).locator(".u-series .u-value").first).to_have_text(step)


def test_how_far_the_model_has_gone_stands_among_the_first_curves(
    served: Site, reader: Reader, training: tuple[str, int]
) -> None:
    job_id, attempt = training
    reader.open(f"/jobs/{job_id}")
    figures = {"loss": 0.5, "ref_drift_mse_gap": 0.1, "policy_drift_mse_gap": 0.2, "kl": 0.3, "ratio": 1.0}
    served.api.say(job_id, attempt, step_completed(10, STEPS).model_copy(update={"metrics": figures}))
    first = reader.page.locator("#curves > .curve")
    drift = first.filter(has=reader.page.get_by_text("Drift", exact=True))
    expect(drift.locator(".u-legend")).to_contain_text("ref drift mse gap")
    expect(drift.locator(".u-legend")).to_contain_text("policy drift mse gap")
    expect(first.filter(has_text="Distance from the reference")).to_be_visible()
    expect(first.filter(has_text="Ratio")).to_have_count(0)


def test_a_log_scale_draws_the_same_points_elsewhere(served: Site, reader: Reader, training: tuple[str, int]) -> None:
    job_id, attempt = training
    for step, loss in ((11, 100.0), (12, 0.0)):  # what has no logarithm is left out
        served.api.say(job_id, attempt, step_completed(step, STEPS).model_copy(update={"metrics": {"loss": loss}}))
    reader.open(f"/jobs/{job_id}")
    drawn = loss_of(reader).locator("canvas")
    linear = drawn.evaluate("canvas => canvas.toDataURL()")
    reader.page.get_by_label("log scale").check()
    assert drawn.evaluate("canvas => canvas.toDataURL()") != linear
    shows(reader, 0.91, "11")
    expect(loss_of(reader).locator(".u-series .u-value").nth(1)).to_have_text("100")
    reader.page.get_by_label("log scale").uncheck()
    reader.page.mouse.move(0, 0)
    expect(loss_of(reader)).to_be_visible()
    assert drawn.evaluate("canvas => canvas.toDataURL()") == linear


def test_a_part_is_chosen_by_keyboard_and_stays_chosen_as_the_run_goes_on(
    served: Site, reader: Reader, training: tuple[str, int]
) -> None:
    job_id, attempt = training
    reader.open(f"/jobs/{job_id}")
    shows(reader, 0.5, "5")
    reader.page.locator("#first-step").focus()
    reader.press("2", "Tab", "4")
    for share, step in ((0.05, "2"), (0.5, "3"), (0.95, "4")):
        shows(reader, share, step)
    served.api.say(job_id, attempt, step_completed(30, STEPS))
    expect(reader.page.locator("#progress")).to_contain_text(f"30/{STEPS}")
    reader.page.wait_for_timeout(700)  # points are drawn together, twice a second
    shows(reader, 0.9, "4")
    for name in ("#first-step", "#last-step"):
        reader.page.locator(name).fill("")
    shows(reader, 0.01, "1")
    shows(reader, 0.99, "30")


def test_what_was_zoomed_by_dragging_stays_so_and_can_be_smoothed(
    served: Site, reader: Reader, training: tuple[str, int]
) -> None:
    job_id, attempt = training
    reader.open(f"/jobs/{job_id}")
    box = loss_of(reader).locator(".u-over").bounding_box()
    assert box is not None
    mouse, height = reader.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + 1, height)
    mouse.down()
    mouse.move(box["x"] + 0.4 * box["width"], height, steps=5)
    mouse.up()
    shows(reader, 0.99, re.compile("^[45]$"))
    served.api.say(job_id, attempt, step_completed(30, STEPS))
    expect(reader.page.locator("#progress")).to_contain_text(f"30/{STEPS}")
    reader.page.wait_for_timeout(700)
    shows(reader, 0.98, re.compile("^[45]$"))
    rough = reader.page.evaluate(LOSS_AS_DRAWN)
    reader.page.get_by_label("Smoothing").fill("0.9")
    reader.page.wait_for_function(f"rough => {LOSS_AS_DRAWN} !== rough", arg=rough)
    shows(reader, 0.99, re.compile("^[45]$"))


def test_a_point_that_comes_before_the_series_is_not_lost(
    served: Site, reader: Reader, training: tuple[str, int]
) -> None:
    job_id, attempt = training
    held: list[Route] = []
    reader.page.route("**/metrics?*", lambda route: held.append(route))
    reader.page.goto(f"/jobs/{job_id}")
    while not held:
        reader.page.wait_for_timeout(20)
    before = held[0].fetch()
    served.api.say(job_id, attempt, step_completed(12, STEPS))
    expect(reader.page.locator("#progress")).to_contain_text(f"12/{STEPS}")
    held[0].fulfill(response=before)
    loss_of(reader).wait_for()
    shows(reader, 0.99, "12")


LOSS_AS_DRAWN = "document.querySelector('#curves canvas').toDataURL()"
