"""Two pictures of the same noise in a real browser: they come by themselves, and a handle goes from one to the other."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from tests.browser.axe import grave_faults
from tests.browser.conftest import NewReader
from tests.browser.reader import Reader
from tests.browser.site import Site, site
from tests.service.api import test_candidates

SCREEN = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as filled:
        yield filled


@pytest.fixture
def reader(served: Site, new_reader: NewReader) -> Reader:
    return new_reader(served.address, viewport=SCREEN)


def handle_of(reader: Reader) -> Locator:
    return reader.page.get_by_role("slider", name="Where shapes ends")


def share_of_the_first(reader: Reader) -> float:
    """How much of the width the picture on the left has, of what the one above it leaves."""
    left = reader.page.evaluate(
        """() => {
        const [first, second] = document.querySelectorAll(".side");
        const cut = getComputedStyle(second).clipPath.match(/inset\\(0px 0px 0px ([0-9.]+)(px|%)\\)/);
        const box = first.getBoundingClientRect();
        const above = second.getBoundingClientRect();
        if (Math.abs(box.left - above.left) + Math.abs(box.width - above.width) > 1) return -1;
        return cut[2] === "%" ? cut[1] / 100 : cut[1] / box.width;
    }"""
    )
    return round(left, 2)


def test_a_prompt_is_typed_drawn_and_looked_at_without_a_page_in_between(served: Site, reader: Reader) -> None:
    page = reader.page
    checkpoint_id = served.api.checkpoint_id(served.finished)
    reader.open(f"/playground?job={served.finished}&checkpoint={checkpoint_id}")
    page.get_by_label("Prompt").fill("a small blue star")
    with page.expect_navigation():
        reader.button("Draw").click()
    expect(page.get_by_role("status")).to_contain_text("queued")
    page.get_by_label("Prompt").fill("what I type while I wait")
    page.evaluate("window.isTheSamePage = true")
    test_candidates.drawn(served.api, page.url.rpartition("/")[2])
    expect(page.locator("#drawn img")).to_have_count(2)
    expect(page.get_by_label("Prompt")).to_have_value("what I type while I wait")
    expect(page.get_by_label("Prompt")).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("succeeded")
    assert page.evaluate("window.isTheSamePage")
    expect(page.get_by_label("One over the other")).to_be_visible()


def test_the_handle_goes_by_keys_and_by_mouse_from_one_picture_to_the_other(served: Site, reader: Reader) -> None:
    reader.open(f"/playground/{served.played}")
    expect(handle_of(reader)).to_be_hidden()
    reader.page.get_by_label("One over the other").focus()
    reader.press("Space")
    assert share_of_the_first(reader) == 0.5
    reader.press("Tab")
    expect(handle_of(reader)).to_be_focused()
    assert reader.focused()["outline"] >= 2
    for key, share in (("ArrowRight", 0.51), ("PageUp", 0.61), ("Home", 0), ("End", 1)):
        reader.press(key)
        assert share_of_the_first(reader) == share, key
    said = handle_of(reader).get_attribute("aria-valuetext") or ""
    assert said.startswith("shapes to 100 %")
    box = handle_of(reader).bounding_box()
    assert box is not None
    reader.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    reader.page.mouse.down()
    reader.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30, steps=4)
    reader.page.mouse.up()
    assert share_of_the_first(reader) == pytest.approx(0.25, abs=0.02)
    reader.page.reload()
    expect(handle_of(reader)).to_be_visible()  # this tab is asked once how it wants to compare


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_with_the_handle_there(scheme: str, served: Site, reader: Reader) -> None:
    reader.page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    reader.open(f"/playground/{served.played}")
    reader.page.get_by_label("One over the other").check()
    for size in (SCREEN, PHONE):
        reader.page.set_viewport_size(size)
        assert reader.width_beyond_the_screen() == 0
        assert grave_faults(reader.page) == []


def test_a_finger_moves_the_handle_and_still_scrolls_the_page(served: Site, new_reader: NewReader) -> None:
    phone = new_reader(served.address, viewport=PHONE, is_mobile=True, has_touch=True)
    phone.open(f"/playground/{served.played}")
    phone.page.get_by_label("One over the other").tap()
    handle = handle_of(phone)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    phone.page.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert share_of_the_first(phone) == pytest.approx(0.8, abs=0.03)
    assert handle.evaluate("one => getComputedStyle(one).touchAction") == "pan-y"


def test_without_a_script_both_pictures_stand_beside_each_other(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport=SCREEN, java_script_enabled=False)
    reader.open(f"/playground/{served.played}")
    left, right = (one.bounding_box() for one in reader.page.locator("#drawn img").all())
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    expect(reader.page.get_by_label("One over the other")).to_be_hidden()
