"""A file brought to the page of data sets arrives whole: over a connection that is cut, and over a reload of the page."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from service.main import create_app
from service.settings import Settings
from service.store import uploads
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.browser.axe import grave_faults
from tests.browser.conftest import NewReader
from tests.browser.reader import Reader
from tests.servers.cutting import CutConnection, cut_connection
from tests.service.api.live import serving
from tests.service.api.world import CATALOG, Api

CONTENT = b"PAR1" + random.Random(0).randbytes(19_999_996)  # three pieces
BROKEN = r"not loaded: (POST|PATCH|GET) |ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_CONNECTION_CLOSED"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", catalog_path=CATALOG)
    settings.data_dir.mkdir()
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield Api(client)


@pytest.fixture
def connection(api: Api) -> Iterator[CutConnection]:
    with serving(api.client.app) as address, cut_connection(address) as cut:  # pyright: ignore[reportArgumentType]
        yield cut


@pytest.fixture
def reader(connection: CutConnection, new_reader: NewReader) -> Reader:
    found = new_reader(connection.address, viewport={"width": 1280, "height": 900})
    found.open("/datasets")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(CONTENT)
    return path


def choose(reader: Reader, file: Path) -> None:
    reader.page.get_by_label("Choose a file").set_input_files(file)


def arrived(api: Api, reader: Reader) -> bytes:
    """The bytes of the data set whose page the reader is brought to."""
    reader.page.wait_for_url(re.compile(r"/datasets/ds_"))
    dataset_id = reader.page.url.rpartition("/")[2]
    return b"".join(api.parts.objects.open_range(f"projects/{PROJECT}/datasets/{dataset_id}/data.parquet"))


def test_a_file_arrives_whole_over_a_connection_that_is_cut(
    api: Api, connection: CutConnection, reader: Reader, file: Path
) -> None:
    reader.expects(BROKEN)
    connection.cuts = [3_000_000, 9_500_000]
    choose(reader, file)
    reader.page.get_by_label("Name").fill("cut twice")
    reader.button("Upload").click()
    assert arrived(api, reader) == CONTENT
    assert connection.cuts == []
    expect(reader.page.locator("h1")).to_have_text("cut twice")
    assert uploads.list_unfinished(api.parts.store, PROJECT).data == ()


def test_the_same_file_chosen_after_a_reload_goes_on_where_it_was(
    api: Api, connection: CutConnection, reader: Reader, file: Path
) -> None:
    reader.expects(BROKEN)
    choose(reader, file)
    reader.page.get_by_label("Name").fill("begun before")
    connection.cuts = [9_000_000, *[0] * 100]
    reader.button("Upload").click()
    expect(reader.page.get_by_text("connection lost, trying again")).to_be_visible()
    (begun,) = uploads.list_unfinished(api.parts.store, PROJECT).data
    assert 8_000_000 < begun.received_bytes < len(CONTENT)
    connection.cuts.clear()
    reader.page.reload()
    expect(
        reader.page.get_by_text(re.compile(r"pairs\.parquet: 4\d % has arrived\. Choose the same file"))
    ).to_be_visible()
    assert grave_faults(reader.page) == []

    choose(reader, file)
    expect(reader.page.get_by_label("Name")).to_have_value("begun before")
    reader.button("Upload").click()
    assert arrived(api, reader) == CONTENT
    with api.parts.store.read() as session:
        assert session.query(uploads.Upload.id).count() == 1, "and it is the one that was begun"
    reader.open("/datasets")
    expect(reader.page.get_by_text("has arrived")).to_have_count(0)


def test_what_is_unfinished_is_discarded(api: Api, connection: CutConnection, reader: Reader, file: Path) -> None:
    reader.expects(BROKEN)
    choose(reader, file)
    connection.cuts = [9_000_000, *[0] * 100]
    reader.button("Upload").click()
    expect(reader.page.get_by_text("connection lost, trying again")).to_be_visible()
    connection.cuts.clear()
    reader.page.reload()
    reader.button("Discard pairs.parquet").click()
    expect(reader.page.get_by_text("has arrived")).to_have_count(0)
    assert uploads.list_unfinished(api.parts.store, PROJECT).data == ()


def test_a_file_that_will_not_do_is_said_so_and_leaves_nothing(api: Api, reader: Reader, tmp_path: Path) -> None:
    reader.expects(r"answered 422: PATCH|status of 422")
    other = tmp_path / "pairs.zip"
    other.write_bytes(b"prompt,chosen\n" * 100)
    choose(reader, other)
    reader.button("Upload").click()
    expect(reader.page.locator("#upload [role=alert]")).to_contain_text("neither a parquet file nor a zip")
    assert uploads.list_unfinished(api.parts.store, PROJECT).data == ()
    assert reader.page.evaluate("localStorage.length") == 0
