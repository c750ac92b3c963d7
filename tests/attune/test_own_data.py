"""People's own data from the command and the client: folders, columns, and what is prepared on their machine."""

import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from alignment_core.datasets.detect import open_preferences
from attune.client import Client
from attune.folder_zip import FolderZip
from attune.preparation import prepare_dataset, read_columns
from service.main import create_app
from service.settings import Settings
from tests.alignment_core.datasets.test_forms import PAIRS, csv_folder, embedded_rows, pairs_of, write_save_to_disk
from tests.attune.command import run_attune
from tests.service.api.live import serving
from tests.service.api.world import CATALOG, Api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", catalog_path=CATALOG)
    settings.data_dir.mkdir()
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield Api(client)


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with serving(api.client.app) as address, Client(address) as connected:  # pyright: ignore[reportArgumentType]
        yield connected


def attune(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_attune(*map(str, arguments), timeout_seconds=120)


def stored_zip(api: Api) -> bytes:
    (info,) = api.parts.objects.list("projects/")
    return b"".join(api.parts.objects.open_range(info.key))


def test_a_folder_is_uploaded_as_a_zip_with_its_columns(api: Api, client: Client, tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "my pairs")
    dataset = client.upload_dataset(folder, columns={"prompt": "prompt"})
    assert (dataset.filename, dataset.columns) == ("my pairs.zip", {"prompt": "prompt"})
    (tmp_path / "received.zip").write_bytes(stored_zip(api))
    assert pairs_of(tmp_path / "received.zip") == PAIRS


def test_a_folder_is_zipped_in_small_parts_and_always_the_same(tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "data")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "large.bin").write_bytes(bytes(5 * 2**20))
    parts = list(FolderZip(folder))
    assert max(map(len, parts)) <= 2**20
    assert b"".join(parts) == FolderZip(folder).read()
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        assert ".DS_Store" not in archive.namelist()


def test_shards_of_an_uploaded_folder_are_read_in_place(tmp_path: Path) -> None:
    folder = write_save_to_disk(tmp_path / "data", embedded_rows())
    (tmp_path / "a.zip").write_bytes(FolderZip(folder).read())
    assert pairs_of(tmp_path / "a.zip") == PAIRS


def test_a_link_out_of_the_folder_is_not_uploaded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"key")
    folder = csv_folder(tmp_path / "data")
    (folder / "images" / "x.png").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="a link that leads out"):
        FolderZip(folder)


def test_an_empty_folder_is_not_uploaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file to upload"):
        FolderZip(tmp_path)


def test_a_folder_is_prepared_on_this_machine(tmp_path: Path) -> None:
    out = tmp_path / "pairs.parquet"
    done = attune("dataset", "prepare", csv_folder(tmp_path / "data"), "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 7 pairs of {tmp_path / 'data'} (csv)\n"
    assert open_preferences(out).format == "parquet"
    assert pairs_of(out) == PAIRS


def test_what_keeps_data_from_being_prepared_is_one_message(tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "data")
    done = attune("dataset", "prepare", folder, "--out", tmp_path / "out.parquet", "--columns", "prompt=caption")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no column 'caption' (columns.prompt); found chosen, prompt, rejected [missing_column]" in done.stderr
    with pytest.raises(ValueError, match="no such file or folder"):
        prepare_dataset(tmp_path / "none", tmp_path / "out.parquet")
    with pytest.raises(ValueError, match="no role 'promt'"):
        prepare_dataset(folder, tmp_path / "out.parquet", {"promt": "prompt"})


def test_columns_are_written_in_short_or_as_json() -> None:
    columns = {"prompt": "caption", "chosen": "a b"}
    assert (
        read_columns("prompt=caption,chosen=a b") == read_columns('{"prompt": "caption", "chosen": "a b"}') == columns
    )
    for wrong in ("caption", "prompt=", "=x", "prompt=a,prompt=b", '{"prompt": 1}', "{"):
        with pytest.raises(ValueError, match="--columns"):
            read_columns(wrong)
