"""Two pictures of the same noise in a real browser: they come by themselves, and a handle goes from one to the other."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from playwright.sync_api import Locator, ViewportSize, expect

from tests.browser.axe import grave_faults
from tests.browser.conftest import NewReader
from tests.browser.markup import marked
from tests.browser.reader import Reader
from tests.browser.site import STEPS, Site, grid_of, site
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


def test_a_drawing_is_deleted_by_keyboard_once_it_was_asked_again(served: Site, reader: Reader) -> None:
    prompt = marked("prompt that goes")
    asked = {"prompt": prompt, "seed": 3, "contenders": [{"name": "base", "model": "shapes"}]}
    played = served.api.client.post("/v1/playground", json=asked).json()["id"]
    test_candidates.drawn(served.api, played)
    page = reader.page
    for viewport in (PHONE, SCREEN):
        page.set_viewport_size(viewport)
        reader.open(f"/playground/{played}")
        page.locator("summary", has_text="Delete").focus()
        reader.press("Enter")
        question = page.locator("#drawn").get_by_text("This cannot be undone.")
        expect(question).to_be_in_viewport(ratio=1)  # the heading is so long that the button stands below it
        assert reader.width_beyond_the_screen() == 0
        assert grave_faults(page) == []
    assert served.api.client.get(f"/v1/candidates/{played}").status_code == 200
    with page.expect_navigation():
        reader.press("Tab", "Enter")
    assert page.url == f"{served.address}/playground"
    expect(page.locator("main")).not_to_contain_text(prompt)
    assert served.api.client.get(f"/v1/candidates/{played}").status_code == 404


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


@pytest.mark.parametrize("path", ["/playground/{played}", "/jobs/{finished}"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_with_the_handle_there(scheme: str, path: str, served: Site, reader: Reader) -> None:
    reader.page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    reader.open(path.format(played=served.played, finished=served.finished))
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


def color_in_the_middle_of(reader: Reader, side: int) -> tuple[int, ...]:
    """Of what is shown of one of the two parts, as the screen has it."""
    shot = reader.page.locator("#closer svg").nth(side).screenshot()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    color = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(color, tuple)
    return tuple(map(int, color))


def test_a_part_of_a_jobs_picture_is_looked_at_closer_and_step_by_step(served: Site, reader: Reader) -> None:
    page = reader.page
    reader.open(f"/jobs/{served.finished}")
    choice = page.get_by_label("Look closer at")
    expect(choice.locator("option")).to_have_count(4)
    choice.select_option(label="a small blue star · seed 8")
    expect(page.get_by_role("slider", name="Where base ends")).to_be_visible()
    page.get_by_label("One over the other").uncheck()
    page.locator("#closer").scroll_into_view_if_needed()
    assert [color_in_the_middle_of(reader, side) for side in (0, 1)] == [(255, STEPS, 0), (0, STEPS, 255)]
    page.get_by_role("slider", name="Step").focus()
    reader.press("Home")
    expect(choice.locator("option:checked")).to_have_text("a small blue star · seed 8")
    assert [color_in_the_middle_of(reader, side) for side in (0, 1)] == [(255, STEPS // 2, 0), (0, STEPS // 2, 255)]
    base = page.get_by_role("img", name=f"base at step {STEPS // 2}: a small blue star")
    expect(base).to_have_attribute("width", "320")
    page.locator(".slide:visible img").click(position={"x": 140, "y": 160})
    expect(choice.locator("option:checked")).to_contain_text("seed 7")
    expect(reader.link("Draw it again")).to_be_hidden()
    expect(page.get_by_text("No checkpoint of this step is kept")).to_be_visible()
    page.get_by_role("slider", name="Step").focus()
    reader.press("End")
    expect(page.get_by_text("No checkpoint of this step is kept")).to_be_hidden()
    reader.link("Draw it again in the playground").click()
    expect(page.get_by_label("And another")).to_have_value(served.api.checkpoint_id(served.finished))
    expect(page.get_by_label("Seed")).to_have_value("7")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(marked("prompt of a picture"))


def test_a_picture_that_comes_takes_nobody_from_the_step_and_the_part_that_they_look_at(
    served: Site, reader: Reader
) -> None:
    page, prompts = reader.page, ["a red  circle\non  a table"]
    for step in (1, 2):
        served.api.draw_sample(served.running, 1, step, prompts, *grid_of(prompts, step))
    reader.open(f"/jobs/{served.running}")
    page.get_by_label("Look closer at").select_option(index=1)
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    reader.press("ArrowLeft")
    served.api.draw_sample(served.running, 1, 3, prompts, *grid_of(prompts, 3))
    expect(page.locator(".slide")).to_have_count(3)
    expect(slider).to_have_value("0")
    expect(page.locator(".slide:visible")).to_have_attribute("data-step", "1")
    expect(page.get_by_label("Look closer at")).to_have_value("1")
    expect(page.get_by_role("slider", name="Where base ends")).to_be_visible()
    reader.press("End")
    served.api.draw_sample(served.running, 1, 4, prompts, *grid_of(prompts, 4))
    expect(page.locator(".slide:visible")).to_have_attribute("data-step", "4")  # who looks at the newest follows


def test_without_a_script_both_pictures_stand_beside_each_other(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport=SCREEN, java_script_enabled=False)
    reader.open(f"/playground/{served.played}")
    left, right = (one.bounding_box() for one in reader.page.locator("#drawn img").all())
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    expect(reader.page.get_by_label("One over the other")).to_be_hidden()
