"""Large files go in pieces, on over connections that break, and are what was on the disk in the end."""

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attune import uploads
from attune.client import Client
from attune.errors import AttuneError
from attune.folder_zip import FolderZip
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.servers.cutting import CutConnection, cut_connection
from tests.service.api.conftest import (  # noqa: F401
    NewApi,
    any_api,
    api,
    database_template,
    deployed_api,
    new_api,
    s3_settings,
)
from tests.service.api.live import serving
from tests.service.api.world import Api

SIZE = 6_000_000
CONTENT = b"PAR1" + random.Random(0).randbytes(SIZE - 4)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of some MB is large here, and a connection is tried again soon."""
    monkeypatch.setattr(uploads, "LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(uploads, "PIECE_BYTES", 2_000_000)
    monkeypatch.setattr(uploads, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def connection(any_api: Api) -> Iterator[CutConnection]:  # noqa: F811
    with serving(any_api.client.app) as address, cut_connection(address) as cut:  # pyright: ignore[reportArgumentType]
        yield cut


@pytest.fixture
def client(connection: CutConnection) -> Iterator[Client]:
    with Client(connection.address) as connected:
        yield connected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(CONTENT)
    return path


def content_of(served: Api, dataset_id: str, suffix: str) -> bytes:
    return b"".join(served.parts.objects.open_range(f"projects/{PROJECT}/datasets/{dataset_id}/data{suffix}"))


def test_a_file_arrives_whole_over_a_connection_that_is_cut_in_its_middle(
    any_api: Api,  # noqa: F811
    connection: CutConnection,
    client: Client,
    file: Path,
) -> None:
    connection.cuts = [700_000, 1_500_000, 300_000]
    told: list[tuple[int, int]] = []
    dataset = client.upload_dataset(file, name="cut", progress=lambda sent, total: told.append((sent, total)))
    assert connection.cuts == []
    assert (dataset.name, dataset.size_bytes) == ("cut", SIZE)
    assert dataset.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert content_of(any_api, dataset.id, ".parquet") == CONTENT
    assert told[0] == (0, SIZE)
    assert told[-1] == (SIZE, SIZE)
    assert [one.id for one in client.datasets()] == [dataset.id]
    assert list(client.unfinished_uploads()) == []


def test_a_call_goes_on_where_one_that_ended_stopped(
    any_api: Api,  # noqa: F811
    connection: CutConnection,
    client: Client,
    file: Path,
) -> None:
    def stop(sent: int, _total: int) -> None:
        if sent > 3_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload_dataset(file, progress=stop)
    (begun,) = client.unfinished_uploads()
    assert begun.offset >= 2_000_000
    told: list[int] = []
    dataset = client.upload_dataset(file, progress=lambda sent, _: told.append(sent))
    assert told[0] >= 2_000_000, "what had arrived is not sent again"
    assert content_of(any_api, dataset.id, ".parquet") == CONTENT
    assert [one.id for one in client.datasets()] == [dataset.id]
    again = client.upload_dataset(file)
    assert again.id != dataset.id, "another upload of the same file is another data set"


def test_a_call_that_was_silent_for_too_long_goes_on(new_api: NewApi, file: Path) -> None:  # noqa: F811
    served, silences = new_api(upload_idle_seconds=0.3), [1.0, 1.0]

    def progress(sent: int, _total: int) -> None:
        if sent > 2_500_000 and silences:
            time.sleep(silences.pop())

    with serving(served.client.app) as address, Client(address) as client:  # pyright: ignore[reportArgumentType]
        dataset = client.upload_dataset(file, progress=progress)
    assert silences == []
    assert content_of(served, dataset.id, ".parquet") == CONTENT


def test_a_folder_goes_in_pieces_too(
    any_api: Api,  # noqa: F811
    connection: CutConnection,
    client: Client,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "a.bin").write_bytes(CONTENT[:2_500_000])
    (folder / "b.bin").write_bytes(CONTENT[2_500_000:])
    connection.cuts = [1_000_000]
    dataset = client.upload_dataset(folder, columns={"prompt": "caption"})
    assert dataset.filename == "pairs.zip"
    assert content_of(any_api, dataset.id, ".zip") == b"".join(FolderZip(folder))


def test_an_upload_under_one_key_is_one_data_set(client: Client, file: Path) -> None:
    first, second = (client.upload_dataset(file, idempotency_key="mine") for _ in range(2))
    assert first.id == second.id


def test_a_file_that_is_refused_leaves_no_upload(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"prompt,chosen\n" * 200_000)
    with pytest.raises(AttuneError, match="neither a parquet file nor a zip"):
        client.upload_dataset(path)
    assert list(client.unfinished_uploads()) == []


def test_a_server_that_is_gone_is_given_up_and_the_upload_stays(
    connection: CutConnection, client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_TRIES", 3)

    def gone(sent: int, _total: int) -> None:
        if sent > 2_500_000:
            connection.cuts[:] = [0] * 3

    with pytest.raises(AttuneError) as error:
        client.upload_dataset(file, progress=gone)
    assert error.value.code == "unreachable"
    connection.cuts.clear()
    (left,) = client.unfinished_uploads()
    assert left.offset >= 2_000_000
    client.delete_upload(left.id)
    assert list(client.unfinished_uploads()) == []


@pytest.mark.parametrize("collection", ["prompts", "weights"])
def test_prompts_and_weights_go_in_pieces_too(
    connection: CutConnection, client: Client, tmp_path: Path, collection: str
) -> None:
    connection.cuts = [900_000]
    if collection == "prompts":
        path = tmp_path / "p.txt"
        path.write_text("\n".join(f"a circle, the {number}th of all of them" for number in range(60_000)))
        assert client.upload_prompts(path, name="many").num_prompts == 60_000
    else:
        header = b'{"x.lora_A.weight":{"dtype":"F32","shape":[500000],"data_offsets":[0,2000000]}}'
        path = tmp_path / "style.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2_000_000))
        assert client.upload_weights(path, name="style").size_bytes == path.stat().st_size
    assert connection.cuts == []


def test_a_file_that_shrinks_while_it_is_sent_is_told(client: Client, file: Path) -> None:
    def shrink(sent: int, _total: int) -> None:
        if sent > 2_500_000:
            file.write_bytes(CONTENT[:2_600_000])

    with pytest.raises(ValueError, match="became shorter"):
        client.upload_dataset(file, progress=shrink)


def test_a_source_is_read_from_any_byte_on(tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"abcdef" * 10)
    whole = b"".join(FolderZip(folder))
    for path, content in ((folder, whole), (folder / "a.txt", b"abcdef" * 10)):
        source = uploads.Source(path)
        assert source.measured() == (len(content), hashlib.sha256(content).hexdigest())
        for start in (0, 1, 17, len(content)):
            found: Any = b"".join(source.chunks(start))
            assert found == content[start:]
