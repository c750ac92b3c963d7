"""The report's page: complete, readable by machines for people who need them, and closed to what users write."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from alignment_core.evaluation.page import render_page
from alignment_core.reports import EvaluationReport, Subject
from tests.alignment_core.evaluation.pages import HOSTILE, comparison, full_page, full_report, image_bytes

VOID = {"meta", "link", "img", "br"}
ADDRESSES = {
    "src",
    "href",
    "srcset",
    "action",
    "formaction",
    "poster",
    "data",
    "xlink:href",
    "background",
    "cite",
    "ping",
}


class Page(HTMLParser):
    """Every element with its attributes, all text, and what was left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return full_page()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_element_is_closed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    labels = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    links = {attributes["href"][1:] for attributes in page.all("a")}
    assert labels | links <= set(ids)


def test_nothing_is_asked_of_any_address(html: str, page: Page) -> None:
    addresses = [value for _, attributes in page.elements for name, value in attributes.items() if name in ADDRESSES]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_forbids_itself_to_run_or_load_anything(html: str, page: Page) -> None:
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = policy.split("; ")
    assert parts == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not page.all("script")
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)


def test_what_users_write_is_text_and_nothing_else(html: str, page: Page) -> None:
    assert page.text.count(HOSTILE) >= 2, (
        "the prompt and the warning are shown as they were written, and no template is filled in"
    )
    assert "alert" in page.text
    assert "<script" not in html
    assert any(HOSTILE in attributes["alt"] for attributes in page.all("img"))


def test_pictures_and_plots_say_in_words_what_they_show(page: Page) -> None:
    assert len(page.all("img")) == 2 * 2 * 2
    assert {attributes["alt"].split(",")[0] for attributes in page.all("img")} == {"base", "aligned"}
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]
    assert all("scope" in attributes for attributes in page.all("th"))
    (html_element,) = page.all("html")
    assert html_element["lang"] == "en"


def test_small_pictures_are_kept_to_the_pixel_and_large_ones_shrunk(page: Page) -> None:
    shown = comparison().base.images[0][0]
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(image_bytes(page.all("img")[0]["src"])))), shown)
    large = comparison(size=512)
    first = Page(render_page(full_report(large), large)).all("img")[0]
    picture = Image.open(BytesIO(image_bytes(first["src"])))
    assert (picture.format, picture.size) == ("JPEG", (320, 320))


def test_the_page_tells_everything_that_the_report_promises(page: Page) -> None:
    for told in (
        "Better: colour rose",
        "trained on",
        "not trained on",
        "every pair ties",
        "Gains on one scale",
        "Prompt by prompt",
        "drift of the predictions",
        "5.00\N{NO-BREAK SPACE}% of the norm",
        "reward/colour",
        "Training, steps 101 to 200",
        "hard_copy",
        "gate",
        "pytorch_lora_weights.safetensors",
        *("a" * 64, "b" * 64, "c" * 64, "d" * 64),
        "torch",
        "tailorpo",
    ):
        assert told in page.text, told


def test_a_bar_is_as_long_as_its_value_and_an_empty_bin_is_a_dash(page: Page) -> None:
    widths = [one["width"] for one in page.all("rect") if one["class"] == "bar" or one["class"] == "bar loss"]
    assert "100.0%" in widths
    assert "33.3%" in widths, "|-0.5| of 1.5"
    assert [one for one in page.all("rect") if one["class"] == "bar loss"]
    assert "mean weight" not in page.text, "a weight that is 1 everywhere says nothing"


@pytest.mark.parametrize(
    "changes",
    [
        {"rewards": [], "primary_reward": None, "verdict": "unknown", "prompt_following": None},
        {"curves": [], "timestep_tables": [], "drift": None, "warnings": [], "spec": None},
        {"diversity": None, "prompt_following": None, "verdict": "worse"},
        {"verdict": "not_improved", "method": None, "reference": None, "reg_mode": None, "device": None, "seed": None},
    ],
    ids=["no_rewards", "no_training", "no_judge", "unclear"],
)
def test_what_was_not_measured_leaves_no_hole(changes: dict[str, object]) -> None:
    compared = comparison()
    report = full_report(compared).model_copy(update=changes)
    page = Page(render_page(report, compared))
    assert page.open == []
    assert "None" not in page.text


def test_one_seed_and_one_prompt_still_make_a_page() -> None:
    compared = comparison(num_prompts=1, num_seeds=1, with_judge=False)
    compared = replace(
        compared,
        shown=(0,),
        base=replace(compared.base, images=compared.base.images[:1]),
        policy=replace(compared.policy, images=compared.policy.images[:1]),
    )
    page = Page(render_page(full_report(compared), compared))
    assert "One prompt proves nothing" in page.text
    assert len(page.all("img")) == 2


def test_thousands_of_prompts_make_a_page_of_bounded_size() -> None:
    compared = comparison(num_prompts=5000)
    page = render_page(full_report(compared), compared)
    assert len(page) < 300_000
    assert "every bar stands for its neighbours too" in page


def test_a_report_of_format_1_can_be_shown(page: Page) -> None:
    compared = comparison()
    report = full_report(compared)
    lines = [
        line.model_copy(update={"p_value": None, "wilson_interval": None, "prompts_won": None})
        for line in report.rewards
    ]
    old = EvaluationReport.model_validate(
        report.model_copy(update={"rewards": lines, "drift": None, "curves": []}).model_dump()
    )
    assert Page(render_page(old, compared)).open == []


def test_the_page_says_what_it_is_of_and_how_to_load_the_weights() -> None:
    compared = comparison()
    told = Subject(
        job_id="job_1",
        job_name="first <try>",
        model="sd15",
        dataset="pairs.parquet",
        steps=200,
        written_at=datetime(2026, 11, 28, 9, 5, tzinfo=UTC),
    )
    spec = {"adapter": {"type": "lora"}, "model": {"type": "hub", "repo_id": "owner/name", "revision": "0" * 40}}
    page = render_page(full_report(compared).model_copy(update={"subject": told, "spec": spec}), compared)
    for part in (
        "job first &lt;try&gt;",
        "model sd15",
        "data pairs.parquet",
        "200 steps",
        "28 November 2026, 09:05 UTC",
    ):
        assert part in page
    assert "attune checkpoint download job_1 aligned" in page
    assert "load_lora_weights" in page
    assert f"&#34;owner/name&#34;, revision=&#34;{'0' * 40}&#34;" in page
