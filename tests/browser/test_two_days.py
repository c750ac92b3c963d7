"""What a person who has never seen Attune does: on the first day with pairs that there are, on the second with labels of their own."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from attune.client import Client
from attune.local_server import PYTHON
from attune.processes import LocalProcess
from tests.browser.conftest import NewReader
from tests.browser.lossy import lossy_connection
from tests.browser.reader import Reader
from tests.e2e.conftest import ASSETS
from tests.servers.process import folder, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_MS = 300_000  # of a job on a busy machine
ADDRESS = re.compile(r"Attune is up at (\S+)")
STEPS = 12


@dataclass(frozen=True)
class Up:
    """What `attune up` printed, and the API behind it."""

    address: str

    @property
    def client(self) -> Client:
        return Client(self.address)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`attune up` as it is typed, in an empty folder."""
    log = tmp_path_factory.mktemp("up") / "up.log"
    with folder("up") as data_dir:
        command = [*PYTHON, "attune", "up", "--port", "0", "--data-dir", str(data_dir)]
        process = LocalProcess("up", command, log_path=log, env=os.environ)
        try:
            wait_until(lambda: ADDRESS.search(log.read_text()) is not None or not process.is_running, "attune up")
            found = ADDRESS.search(log.read_text())
            assert found is not None, process.log_tail()
            yield Up(found[1])
        finally:
            process.ask_to_stop()
            process.wait(60)


@pytest.fixture
def reader(up: Up, new_reader: NewReader) -> Reader:
    return new_reader(up.address, viewport={"width": 1280, "height": 900}, accept_downloads=True)


def upload(reader: Reader, file: Path) -> None:
    reader.page.get_by_label("Choose a file").set_input_files(file)
    reader.button("Upload").click()


def test_from_pairs_to_a_lora_without_a_document(up: Up, reader: Reader, tmp_path: Path) -> None:
    page = reader.page
    reader.open("/")
    reader.link("Upload pairs").click()
    upload(reader, ASSETS / "pairs.parquet")
    reader.link("Start a job with it").click(timeout=PATIENCE_MS)
    page.locator("#name").fill("first")
    page.locator("#field-training-steps").fill(str(STEPS))
    expect(page.get_by_text("This can run")).to_be_visible()
    reader.button("Start").click()
    job_id = seen_through(up, reader, tmp_path)
    with up.client as client:
        assert client.get_job(job_id).name == "first"


def seen_through(up: Up, reader: Reader, folder: Path, prompts: str = "held-out prompts") -> str:
    """A job that was started just now: watched to its end without a reload, its pictures compared, its LoRA downloaded; its id.

    `prompts` is what the report says of its prompts.
    """
    page = reader.page
    page.wait_for_url(re.compile(r"/jobs/job_"))
    job_id = page.url.rpartition("/")[2]
    page.evaluate("window.isTheSamePage = true")
    page.locator("#curves canvas").first.wait_for(timeout=PATIENCE_MS)
    early = page.evaluate(LOSS_AS_DRAWN)
    page.wait_for_function(f"early => {LOSS_AS_DRAWN} !== early", arg=early, timeout=PATIENCE_MS)
    expect(page.locator(".state").first).to_have_text("succeeded", timeout=PATIENCE_MS)
    expect(page.locator("#report")).to_contain_text(prompts)
    expect(page.locator("#progress")).to_contain_text(f"{STEPS}/{STEPS}")
    compare_pictures(up, reader, job_id)
    assert page.evaluate("window.isTheSamePage"), "nothing of it took a reload"

    with page.expect_download(timeout=PATIENCE_MS) as download:
        reader.link("peft").first.click()
    lora = folder / "lora.zip"
    download.value.save_as(lora)
    with up.client as client:
        assert client.get_job(job_id).status == "succeeded"
        assert client.report(job_id).verdict in page.locator("#report strong").inner_text().replace(" ", "_")
        address = f"{up.address}/v1/checkpoints/{client.result_checkpoint(job_id)}/download?format=peft"
        assert lora.read_bytes() == httpx.get(address, follow_redirects=True).raise_for_status().content
    return job_id


def compare_pictures(up: Up, reader: Reader, job_id: str) -> None:
    """Base against aligned, of one seed, with the handle at both of its ends: what is seen is what the API has."""
    page = reader.page
    handle = page.get_by_role("slider", name="Where base ends")
    handle.scroll_into_view_if_needed()
    sides = page.locator("#closer .side svg")
    shown = []
    for key in ("End", "Home"):  # all of the base, all of the aligned one
        handle.focus()
        reader.press(key)
        shown.append(sides.first.screenshot())
    assert shown[0] != shown[1], "the job has changed what the model draws"
    (address,) = set(page.locator("#closer image").evaluate_all("all => all.map(one => one.getAttribute('href'))"))
    samples = httpx.get(f"{up.address}/v1/jobs/{job_id}/samples").raise_for_status().json()["data"]
    newest = max(samples, key=lambda one: one["step"])
    assert address == newest["image_url"]
    chosen = page.get_by_label("Look closer at").locator("option:checked").inner_text()
    tile = newest["grid"]["tiles"][0]
    assert chosen == f"{newest['prompts'][tile['prompt']]} · seed {tile['seed']}"
    corners = [(tile[side]["x"], tile[side]["y"]) for side in ("base", "policy")]
    boxes = sides.evaluate_all("all => all.map(one => one.getAttribute('viewBox').split(' ').map(Number))")
    assert [tuple(box[:2]) for box in boxes] == corners


LOSS_AS_DRAWN = "document.querySelector('#curves canvas').toDataURL()"


def answer(tab: Reader, keys: list[str]) -> list[str]:
    """Judge as many pairs as there are keys, each when its pictures are there; the questions that were asked."""
    asked: list[str] = []
    for key in keys:
        asked.append(tab.page.wait_for_function(IS_ASKED).json_value())
        tab.press(key)
        tab.page.wait_for_function(
            "asked => document.querySelector('#judge')?.dataset.question !== asked", arg=asked[-1]
        )
    return asked


IS_ASKED = """() => document.querySelector("#judge").ariaBusy !== "true"
  && [...document.querySelectorAll(".pick img")].every(image => image.complete && image.naturalWidth)
  && document.querySelector("#judge").dataset.question"""


def test_on_the_second_day_labels_of_their_own_become_a_job(
    up: Up, reader: Reader, new_reader: NewReader, tmp_path: Path
) -> None:
    page = reader.page
    reader.open("/")
    page.get_by_role("link", name="Label", exact=True).click()
    reader.link("Draw pictures").first.click()
    page.get_by_label("Prompts, one a line").fill("\n".join(PROMPTS))
    page.get_by_text("Settings").click()
    page.get_by_label("Sampling steps").fill("4")
    reader.button("Draw").click()
    page.get_by_label("Pairs, at most").fill(str(PAIRS), timeout=PATIENCE_MS)
    page.get_by_label("Asked a second time, percent").fill("0")
    reader.button("Start judging").click()
    page.wait_for_url(re.compile(r"/label/lab_"))
    labeling_id = page.url.partition("?")[0].rpartition("/")[2]
    keys = ["ArrowLeft", "ArrowRight", "ArrowRight", "t", "ArrowLeft"]
    answer(reader, 2 * keys)
    wait_until(lambda: num_answered(up, labeling_id) == 10, "the answers being there")
    asked = answer(reader, ["b"])[0]
    wait_until(lambda: num_answered(up, labeling_id) == 11, "both being bad is an answer")
    reader.press("u")
    expect(page.locator("#judge")).to_have_attribute("data-question", asked)
    expect(page.locator("#judge-count")).to_have_text(f"10/{PAIRS}")
    wait_until(lambda: num_answered(up, labeling_id) == 10, "what was taken back is gone")

    reader.expects("ERR_INTERNET_DISCONNECTED")
    reader.context.set_offline(True)
    answer(reader, keys[:2])
    expect(page.locator("#judge-notice")).to_contain_text("No connection. 2 answers are kept")
    reader.context.set_offline(False)
    expect(page.locator("#judge-notice")).to_have_text("", timeout=60_000)

    with lossy_connection(up.address) as connection:
        other = new_reader(connection.address)
        other.context.add_cookies(reader.context.cookies())  # pyright: ignore[reportArgumentType]
        other.expects("ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
        other.open(f"/label/{labeling_id}")
        connection.lose = {r"PUT /v1/labelings/.*": 2}
        answered_elsewhere = answer(other, keys)
        expect(other.page.locator("#judge-count")).to_have_text(f"17/{PAIRS}")
        wait_until(lambda: num_answered(up, labeling_id) == 17, "every answer being there")
        assert len(connection.lost) == 2
    assert answer(reader, ["ArrowLeft"])[0] in answered_elsewhere, "it was on the screen before"
    expect(page.locator("#judge-count")).to_have_text(f"17/{PAIRS}")
    page.wait_for_function(
        "past => !past.includes(document.querySelector('#judge').dataset.question)", arg=answered_elsewhere
    )
    answer(reader, ["ArrowLeft"])
    wait_until(lambda: num_answered(up, labeling_id) == 18, "a question that nobody had answered")
    while num_answered(up, labeling_id) < PAIRS:
        answer(reader, ["ArrowRight"]) if page.locator("#judge").count() else page.wait_for_timeout(200)
    page.wait_for_url(re.compile("/results"))

    reader.button("Make a data set").click()
    reader.link("New job with it").click(timeout=PATIENCE_MS)
    page.locator("#field-training-steps").fill(str(STEPS))
    reader.button("Start").click()
    job_id = seen_through(up, reader, tmp_path, "32 prompts, of which some were trained on")
    with up.client as client:
        job = client.get_job(job_id)
        dataset = client.get_dataset(job.spec["method"]["dataset"]["id"])
        assert dataset.provenance is not None
        assert dataset.provenance["labeling_id"] == labeling_id


PAIRS = 40
PROMPTS = [f"a {size} {color} circle" for size in ("big", "small") for color in ("red", "blue", "green", "yellow")]


def num_answered(up: Up, labeling_id: str) -> int:
    """By all people; each question counts once however often its answer was sent."""
    with up.client as client:
        return sum(one["answered"] + one["skipped"] for one in client.labelings.results(labeling_id).annotators)


def test_an_upload_whose_answers_are_lost_is_stored_once(up: Up, new_reader: NewReader) -> None:
    with lossy_connection(up.address) as connection, up.client as client:
        reader = new_reader(connection.address)
        reader.expects(r"not loaded: (POST|PATCH) .*/v1/uploads|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
        reader.expects(
            "answered 409: PATCH|409 .Conflict."
        )  # a piece that the browser has sent again by itself is there already
        reader.open("/datasets")
        reader.page.get_by_label("Name").fill("sent twice")
        connection.lose = dict.fromkeys(UPLOADING, 2)
        upload(reader, ASSETS / "pairs.parquet")
        reader.page.wait_for_url(re.compile(r"/datasets/ds_"))
        assert set(connection.lost) == set(UPLOADING)
        expect(reader.page.locator("h1")).to_have_text("sent twice")
        assert [one.name for one in client.datasets()].count("sent twice") == 1


UPLOADING = [r"POST /v1/uploads", r"PATCH /v1/uploads/\w+", r"POST /v1/uploads/\w+/finish"]


def test_an_upload_waits_for_a_connection_that_is_gone(up: Up, reader: Reader) -> None:
    reader.expects("not loaded: (POST|GET) ")
    reader.expects("ERR_INTERNET_DISCONNECTED")
    reader.open("/datasets")
    reader.page.get_by_label("Name").fill("sent late")
    reader.context.set_offline(True)
    upload(reader, ASSETS / "pairs.parquet")
    expect(reader.page.get_by_text("connection lost, trying again")).to_be_visible()
    reader.context.set_offline(False)
    reader.page.wait_for_url(re.compile(r"/datasets/ds_"))
    with up.client as client:
        assert [one.name for one in client.datasets()].count("sent late") == 1
