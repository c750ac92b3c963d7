"""Every page in a real browser: on a phone, in light and dark, without scripts, by keyboard, and with HTML in whatever users wrote."""

from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

import pytest
from playwright.sync_api import ViewportSize, expect

from alignment_core.events import ProbeCompleted, ValidationCompleted
from service.web.words import duration
from tests.browser.axe import grave_faults
from tests.browser.conftest import NewReader
from tests.browser.markup import marked, smuggled
from tests.browser.pages import paths
from tests.browser.reader import Reader
from tests.browser.site import STEPS, Site, site, start
from tests.service.api.world import step_completed

PHONE = ViewportSize(width=390, height=844)
SCREEN = ViewportSize(width=1280, height=900)
NOT_THERE = r"\b404\b"  # of the page about what is not there
REFUSED = r"\b403\b"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as filled:
        yield filled


@pytest.fixture
def reader(served: Site, new_reader: NewReader) -> Reader:
    """Somebody at a screen, of whom nobody wants a key."""
    found = new_reader(served.address, viewport=SCREEN)
    found.expects(NOT_THERE)
    return found


def test_nobody_needs_to_scroll_sideways_on_a_phone(served: Site, new_reader: NewReader) -> None:
    phone = new_reader(served.address, viewport=PHONE, is_mobile=True, has_touch=True)
    phone.expects(NOT_THERE)
    wider = {}
    for path in paths(served):
        phone.open(path)
        if beyond := phone.width_beyond_the_screen():
            wider[path] = beyond
    assert wider == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_on_any_page(scheme: Literal["light", "dark"], served: Site, reader: Reader) -> None:
    reader.page.emulate_media(color_scheme=scheme)
    faults = {}
    for path in paths(served):
        reader.open(path)
        for size in (SCREEN, PHONE):
            reader.page.set_viewport_size(size)
            if found := grave_faults(reader.page):
                faults[path] = found
    assert faults == {}


def test_axe_would_find_a_control_without_a_label_and_a_text_that_is_too_faint(reader: Reader) -> None:
    reader.open("/datasets")
    reader.page.evaluate(
        "main => { main.append(document.createElement('input')) }", reader.page.locator("main").element_handle()
    )
    reader.page.evaluate("document.querySelector('h1').style.color = 'rgb(240, 240, 240)'")
    rules = {fault.split()[1] for fault in grave_faults(reader.page)}
    assert rules == {"label", "color-contrast"}


def test_dark_is_dark_and_light_is_light(reader: Reader) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)
        reader.open("/")
        paper = reader.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number)")
        lightness[scheme] = sum(paper[:3]) / 3
    assert lightness["light"] > 200
    assert lightness["dark"] < 60


def test_what_users_wrote_stays_text_on_every_page(served: Site, reader: Reader) -> None:
    for path in paths(served):
        reader.open(path)
        assert smuggled(reader.page) == 0, path
    written = {
        "/": "job",
        f"/jobs/{served.finished}": "prompt of a picture",
        f"/jobs/{served.finished}/log": "log",
        f"/jobs/{served.running}": "warning",
        f"/jobs/{served.failed}": "error",
        f"/jobs/new?dataset={served.dataset}": "data set",
        "/datasets": "data set",
        "/label": "labeling",
        f"/label/draws/{served.candidates}": "candidates",
        f"/label/{served.labeling}/results": "labeling",
        f"/datasets/{served.dataset}": "prompt of a pair",
    }
    for path, what in written.items():
        reader.open(path)
        assert marked(what) in reader.page.locator("main").inner_text(), path


def test_prompts_and_metadata_that_are_html_stay_text_where_they_are_judged_and_typed(
    served: Site, reader: Reader
) -> None:
    page = reader.page
    asked = set()
    reader.open(f"/label/{served.labeling}?annotator=somebody")
    for _ in range(2):
        asked.add(page.locator("#judge-prompt").inner_text())
        before = page.locator("#judge-count").inner_text()
        reader.press("s")
        expect(page.locator("#judge-count")).not_to_have_text(before)
        page.wait_for_function("() => document.querySelector('#judge')?.ariaBusy !== 'true'")
        assert smuggled(page) == 0
    assert asked <= {marked("first prompt"), marked("second prompt")}
    reader.open(f"/label/draw?job={served.finished}")
    expect(page.get_by_label("Name")).to_have_value(f"{marked('job')}, blind")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.get_by_label("Prompts, one a line").fill(marked("typed prompt"))
    assert smuggled(page) == 0
    reader.open(f"/?metadata={quote('team=' + marked('metadata'))}")
    expect(page.get_by_label("Metadata")).to_have_value(f"team={marked('metadata')}")
    expect(page.locator("tbody tr")).to_have_count(3)
    assert smuggled(page) == 0


def test_who_has_no_scripts_reads_tables_reports_and_pictures(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport=SCREEN, java_script_enabled=False)
    reader.open("/")
    expect(reader.page.get_by_role("row").filter(has_text="+0.17")).to_be_visible()
    reader.page.get_by_label("State").select_option("failed")
    reader.button("Filter").click()
    expect(reader.page.locator("tbody tr")).to_have_count(1)
    reader.open(f"/jobs/{served.finished}")
    expect(reader.page.get_by_role("region", name="Report by reward")).to_contain_text("[+0.15, +0.19]")
    pictures = reader.page.locator("#pictures img")
    assert pictures.count() >= 2
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()  # they are loaded when they come into view
        expect(picture).to_be_visible()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("picture => picture.naturalWidth") > 0
    for path in paths(served):
        if path != "/no-such-page":
            assert reader.open(path).ok, path
            expect(reader.page.locator("h1")).to_be_visible()


def test_pairs_are_browsed_without_scripts_and_keep_their_place(served: Site, new_reader: NewReader) -> None:
    reader = new_reader(served.address, viewport=SCREEN, java_script_enabled=False)
    reader.open(f"/datasets/{served.dataset}")
    named = reader.page.locator(".problems > li", has_text="repeats row 4")
    expect(named.locator("img")).to_have_count(2)
    expect(named.locator("figcaption")).to_have_text(["✓ chosen", "✗ rejected"])
    named.get_by_role("link", name="Row 5").click()
    assert reader.page.url.endswith("?problem=duplicate_rows&row=5#pairs")
    cards = reader.page.locator(".card")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text(marked("prompt of a pair"))
    expect(reader.page.get_by_label("Problem")).to_have_value("duplicate_rows")
    reader.page.get_by_label("Problem").select_option("contradictory_pairs")
    reader.page.get_by_label("From row").fill("")
    reader.button("Show").click()
    expect(cards.locator("h3")).to_have_text(["Row 2", "Row 7"])
    assert reader.page.url.endswith("#pairs")
    assert reader.page.evaluate("document.querySelector('#pairs').getBoundingClientRect().top") < SCREEN["height"]
    reader.page.locator("#pairs").get_by_role("link", name="All rows").click()
    expect(cards).to_have_count(8)
    expect(cards.nth(2).locator("figcaption")).to_have_text(["tie", "tie"])
    expect(cards.nth(5)).to_contain_text("cannot be shown")
    for picture in cards.locator("img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("picture => picture.naturalWidth") == 160


@pytest.mark.parametrize("path", ["/", "/jobs/{finished}", "/jobs/new", "/datasets", "/datasets/{dataset}"])
def test_who_has_a_keyboard_alone_gets_everywhere_and_sees_where(path: str, served: Site, reader: Reader) -> None:
    reader.open(path.format(finished=served.finished, dataset=served.dataset))
    reader.press("Tab")
    skip = reader.focused()
    assert (skip["text"], skip["is_on_screen"]) == ("Skip to content", True)
    stops = [skip]
    while len(stops) < 300:
        reader.press("Tab")
        stop = reader.focused()
        if stop["place"] <= stops[-1]["place"]:  # after the last comes the browser's own bar, or the first again
            break
        stops.append(stop)
    assert {stop["place"] for stop in stops} >= set(reader.page.evaluate(TO_BE_REACHED)), "what can be used is reached"
    assert [stop for stop in stops if not stop["is_on_screen"]] == []
    assert [stop for stop in stops if stop["outline"] < 2] == []


TO_BE_REACHED = """() => {
  const all = [...document.querySelectorAll("*")];
  const usable = "a[href], button, input:not([type=hidden], [type=radio]), select, textarea, summary";
  return all.flatMap((one, place) => one.matches(usable) && one.checkVisibility() && !one.disabled ? [place] : []);
}"""


def test_the_skip_link_leads_past_the_menu(reader: Reader) -> None:
    reader.open("/")
    reader.press("Tab", "Enter", "Tab")
    assert reader.page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_a_job_is_cancelled_by_keyboard_and_asks_first(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="by keyboard")
    reader.open(f"/jobs/{job_id}")
    reader.page.locator("summary", has_text="Cancel").focus()
    assert served.api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"
    with reader.page.expect_navigation():
        reader.press("Enter", "Tab", "Enter")
    expect(reader.page.locator(".state").first).to_have_text("cancelled")
    assert served.api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_running_job_is_followed_without_asking_for_the_page_again(served: Site, reader: Reader) -> None:
    reader.open(f"/jobs/{served.running}")
    reader.page.evaluate("window.isTheSamePage = true")
    before = reader.page.evaluate(LOSS_AS_DRAWN)
    for step in range(STEPS // 4, STEPS // 2 + 1):
        served.api.say(served.running, 1, step_completed(step, STEPS))
    expect(reader.page.locator("#progress")).to_contain_text(f"{STEPS // 2}/{STEPS}")
    reader.page.wait_for_function(f"before => {LOSS_AS_DRAWN} !== before", arg=before)
    assert reader.page.evaluate("window.isTheSamePage")


def test_an_answer_that_comes_late_takes_nobody_back_in_a_run(served: Site, reader: Reader) -> None:
    """What a page asked for before a step, and is told after it."""
    reader.open(f"/jobs/{served.running}")
    page, late = reader.page, []
    page.route(f"**/jobs/{served.running}", lambda route: late.append((route, route.fetch())))
    page.evaluate("""() => {
        document.body.addEventListener("htmx:after:swap", () => { window.wasSwapped = true; });
        document.body.dispatchEvent(new CustomEvent("attune:changed"));
    }""")
    while not late:
        page.wait_for_timeout(20)
    last = STEPS // 2 + 3
    served.api.say(served.running, 1, step_completed(last, STEPS))
    expect(page.locator("#progress")).to_contain_text(f"{last}/{STEPS}")
    route, answer = late[0]
    route.fulfill(response=answer)
    page.wait_for_function("window.wasSwapped")
    expect(page.locator("#progress")).to_contain_text(f"{last}/{STEPS}")


def test_the_pictures_of_a_step_stay_when_newer_ones_come(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="draws")
    attempt = start(served.api, job_id)
    for step in (3, 6):
        served.api.draw_sample(job_id, attempt, step)
    reader.open(f"/jobs/{job_id}")
    slider, shown = reader.page.get_by_label("Step"), reader.page.locator("#pictures output")
    expect(shown).to_have_text("6")
    served.api.draw_sample(job_id, attempt, 7)
    expect(slider).to_have_attribute("max", "2")
    expect(shown).to_have_text("7")
    slider.focus()
    reader.press("Home")
    expect(shown).to_have_text("3")
    served.api.draw_sample(job_id, attempt, 8)
    expect(slider).to_have_attribute("max", "3")
    expect(shown).to_have_text("3")
    expect(reader.page.locator(".slide:visible")).to_have_count(1)
    assert reader.focused()["tag"] == "input"
    reader.press("End")
    expect(shown).to_have_text("8")


def test_a_probe_is_a_point_of_the_same_curve_live_and_later(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="is probed")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    probe = ProbeCompleted(step=9, num_prompts=4, metrics={"colorfulness_gain": 0.1}, is_best=True)
    served.api.say(job_id, attempt, probe)
    captions = reader.page.locator(".curve figcaption")
    expect(captions.filter(has_text="colorfulness gain")).to_have_text("Held out: colorfulness gain")
    live = captions.all_inner_texts()
    reader.open(f"/jobs/{job_id}")
    expect(captions.filter(has_text="colorfulness gain")).to_have_text("Held out: colorfulness gain")
    assert captions.all_inner_texts() == live


def test_a_curve_that_joins_another_is_drawn_without_a_reload(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="is validated")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    legend = reader.page.locator(".curve", has_text="Loss").locator(".u-legend")
    expect(legend).not_to_contain_text("validation: loss")
    served.api.say(job_id, attempt, ValidationCompleted(step=9, metrics={"loss": 0.5}))
    expect(legend).to_contain_text("validation: loss")


def test_what_is_left_of_a_run_is_told_with_each_step(served: Site, reader: Reader) -> None:
    job_id = served.api.new_job(name="has an end")
    attempt = start(served.api, job_id)
    reader.open(f"/jobs/{job_id}")
    for left, said in ((90.0, "1 min 30 s"), (7.0, "7.0 s"), (3700.0, "1 h 1 min")):
        step = step_completed(STEPS // 4 + int(left) % 7, STEPS)
        served.api.say(job_id, attempt, step.model_copy(update={"eta_seconds": left}))
        expect(reader.page.locator("#left")).to_have_text(f"about {said} left")
        assert duration(left) == said, "the page says it as the server does"


@pytest.fixture
def phone(served: Site, new_reader: NewReader) -> Reader:
    return new_reader(served.address, viewport=PHONE, is_mobile=True, has_touch=True)


@pytest.mark.parametrize(("path", "said"), [("/jobs/new", "This can run"), ("/label/draw", "Draw")])
def test_on_a_phone_what_is_said_of_a_form_stays_in_sight_and_hides_nothing(
    path: str, said: str, phone: Reader
) -> None:
    phone.open(path)
    page = phone.page
    bar = page.locator(".short")
    expect(bar.get_by_text(said).first).to_be_in_viewport(ratio=1)
    for control in page.locator("form .field :is(input, select, textarea):visible").all():
        control.focus()
        box = control.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + min(box["height"], 40) <= bar.evaluate("bar => bar.getBoundingClientRect().top")


@pytest.mark.parametrize("path", ["/", "/datasets", "/models", "/label", "/jobs/{job_id}"])
def test_a_table_is_one_on_a_wide_screen_and_none_is_cut_off_on_a_phone(
    path: str, served: Site, reader: Reader, phone: Reader
) -> None:
    for window, display in ((reader, "table"), (phone, "block")):
        window.open(path.format(job_id=served.finished))
        table = window.page.locator("table.folding").first
        expect(table).to_have_css("display", display)
        assert table.evaluate("one => one.scrollWidth <= one.parentElement.clientWidth"), display


def test_jobs_are_compared_on_a_phone_without_scrolling_a_table(served: Site, reader: Reader, phone: Reader) -> None:
    spec = served.api.client.get(f"/v1/jobs/{served.finished}").json()["spec"]
    changed = {**spec, "method": {**spec["method"], "beta": 321.0}, "evaluation": {"prompts": ["long" * 40]}}
    others = [served.running, served.failed, served.api.new_job(name="x" * 90, spec=changed)]
    for window, display in ((reader, "table"), (phone, "block")):
        window.open("/compare?job=" + "&job=".join([served.finished, *others]))
        tables = window.page.locator("table.side-by-side")
        for table in (tables.first, tables.nth(1)):
            expect(table).to_have_css("display", display)
            assert display == "table" or table.evaluate("one => one.scrollWidth <= one.parentElement.clientWidth")
        beta = window.page.locator("tr").filter(has_text="method.beta")
        named = beta.locator("td").last.evaluate("one => getComputedStyle(one, '::before').content")
        assert (others[-1][-6:] in named) == (display == "block"), (
            "where a line is all there is it says of which job it is"
        )
        expect(tables.first.locator("thead a").first).to_be_visible()
    assert grave_faults(phone.page) == []


def test_on_a_phone_downloads_stand_beside_each_other(served: Site, phone: Reader) -> None:
    phone.open(f"/jobs/{served.finished}")
    buttons = phone.page.locator("#checkpoints .downloads .button").all()
    tops = [round(box["y"]) for one in buttons if (box := one.bounding_box())]
    assert len(set(tops)) < len(tops) - 1


def test_a_reward_is_added_and_taken_away_in_the_form(served: Site, reader: Reader) -> None:
    reader.open(f"/jobs/new?dataset={served.dataset}")
    page = reader.page
    rewards = page.locator("#field-evaluation-rewards > .field")
    before = rewards.count()
    rewards.last.get_by_label("kind").select_option("symmetry")
    expect(rewards).to_have_count(before + 1)
    page.locator(".elsewhere summary").click()
    expect(page.locator("#as-yaml")).to_contain_text("type: symmetry")
    rewards.nth(before - 1).get_by_label("kind").select_option("")
    expect(rewards).to_have_count(before)
    expect(page.locator("#as-yaml")).not_to_contain_text("type: symmetry")


LOSS_AS_DRAWN = "document.querySelector('#curves canvas').toDataURL()"


@pytest.fixture
def stranger(served: Site, new_reader: NewReader) -> Reader:
    """Somebody of whom a key is wanted."""
    return new_reader(served.keyed_address, viewport=SCREEN)


def sign_in(reader: Reader, key: str) -> None:
    reader.page.get_by_label("API key").fill(key)
    reader.button("Sign in").click()


def session_of(reader: Reader) -> list[Any]:
    """Its cookie, if the browser has one."""
    return [one for one in reader.context.cookies() if one.get("name") == "attune_session"]


def test_who_signs_in_comes_to_where_they_wanted_to_and_the_key_stays_nowhere(served: Site, stranger: Reader) -> None:
    stranger.open("/datasets")
    expect(stranger.page).to_have_title("Sign in · Attune")
    sign_in(stranger, served.key)
    expect(stranger.page).to_have_title("Data sets · Attune")
    (cookie,) = session_of(stranger)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")  # pyright: ignore[reportTypedDictNotRequiredAccess]
    assert stranger.page.evaluate("document.cookie") == ""
    assert served.key not in stranger.page.content() + str(stranger.context.cookies()) + stranger.page.url


def test_who_has_signed_out_is_out_even_with_the_old_cookie(served: Site, stranger: Reader) -> None:
    stranger.open("/")
    sign_in(stranger, served.key)
    cookies = stranger.context.cookies()
    stranger.button("Sign out").click()
    expect(stranger.page).to_have_title("Sign in · Attune")
    assert session_of(stranger) == []
    stranger.context.add_cookies(cookies)  # pyright: ignore[reportArgumentType]
    stranger.open("/")
    expect(stranger.page).to_have_title("Sign in · Attune")


def test_a_wrong_key_is_told_and_not_taken(stranger: Reader) -> None:
    stranger.expects(r"\b401\b")
    stranger.open("/sign-in")
    sign_in(stranger, "attune_000000000000_wrong")
    expect(stranger.page.get_by_role("alert")).to_contain_text("This key is not valid")
    expect(stranger.page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    assert session_of(stranger) == []


def test_a_form_without_the_token_of_its_session_does_nothing(served: Site, stranger: Reader) -> None:
    stranger.expects(REFUSED)
    job_id = served.api.new_job(name="to be kept")
    stranger.open(f"/jobs/{job_id}")
    sign_in(stranger, served.key)
    stranger.page.locator("summary", has_text="Cancel").click()
    stranger.page.evaluate(
        "document.querySelectorAll('[name=csrf]').forEach(field => { field.value = '0'.repeat(64) })"
    )
    stranger.button("Cancel").click()
    expect(stranger.page.locator("h1")).to_have_text("Forbidden")
    assert served.api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"


def test_a_page_of_another_site_gives_no_order(served: Site, reader: Reader) -> None:
    reader.expects(REFUSED)
    job_id = served.api.new_job(name="not to be cancelled from elsewhere")
    form = f'<form method="post" action="{served.address}/jobs/{job_id}/cancel"><button>Look at kittens</button></form>'
    reader.page.route("http://elsewhere.test/", lambda route: route.fulfill(body=form, content_type="text/html"))
    reader.open("http://elsewhere.test/")
    reader.button("Look at kittens").click()
    expect(reader.page.locator("body")).to_contain_text("another site")
    assert served.api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"
