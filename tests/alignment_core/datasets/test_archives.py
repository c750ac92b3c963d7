import json
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from alignment_core.datasets.archives import ZipFiles, ZipLimits
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.rows import BadRow
from alignment_core.errors import DataError
from tests.alignment_core.datasets.builders import image_bytes, rows, write_jsonl_folder, zip_folder


def _archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def _refused(path: Path, limits: ZipLimits | None = None) -> str:
    with pytest.raises(DataError) as caught:
        ZipFiles(path, limits)
    assert caught.value.code == "unsafe_archive"
    assert path.name in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.png", "a/../../x.png", "C:/x.png", "a\\..\\x.png", "..", "./../x"]
)
def test_a_name_that_leads_out_refuses_the_archive(tmp_path: Path, name: str) -> None:
    path = _archive(tmp_path / "a.zip", {"pairs.jsonl": b"{}", "fine.png": b"x"})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        archive.writestr(info, b"x")
    assert "relative path" in _refused(path)


def test_a_name_with_a_nul_byte_refuses_the_archive(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"aXb.png": b"x"})
    path.write_bytes(path.read_bytes().replace(b"aXb.png", b"a\0b.png"))
    _refused(path)


def test_a_link_refuses_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "link" in _refused(path)


def test_an_encrypted_entry_refuses_the_archive(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"a.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    assert "encrypted" in _refused(path)


def test_a_doubled_name_refuses_the_archive(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"aXb": b"1", "a/b": b"2"})
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a/b"))
    assert "twice" in _refused(path)


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"pairs.jsonl": bytes(80 * 2**20)})
    assert path.stat().st_size < 2**20
    assert "100 times" in _refused(path)


def test_limits_on_size_entries_and_directory(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {f"{index}.png": bytes(100) for index in range(10)})
    assert "1000 bytes when unpacked; expected at most 999" in _refused(path, ZipLimits(uncompressed_bytes=999))
    assert "10 entries; expected at most 9" in _refused(path, ZipLimits(entries=9))
    assert "table of contents" in _refused(path, ZipLimits(directory_bytes=100))
    ZipFiles(path, ZipLimits(uncompressed_bytes=1000, entries=10))


def _as_zip64(path: Path, directory_bytes: int | None = None) -> Path:
    """Moves the size of the table of contents into zip64's record, as archives over 4 GiB have it."""
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<LL", data, end + 12)
    announced = size if directory_bytes is None else directory_bytes
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, announced, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:end] + record + locator + tail)
    return path


def test_the_directory_of_a_large_archive_is_measured_as_well(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", {"a.png": b"x"})
    assert ZipFiles(_as_zip64(path)).read("a.png", 10) == b"x"
    path = _archive(tmp_path / "b.zip", {"a.png": b"x"})
    assert f"table of contents of {2**40} bytes" in _refused(_as_zip64(path, 2**40))


def test_an_entry_cannot_hold_more_than_it_announces(tmp_path: Path) -> None:
    """The announced size counts against the limits, so it must bound what is read."""
    path = _archive(tmp_path / "a.zip", {"a.png": bytes(10_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 10_000), struct.pack("<L", 10)))
    with pytest.raises(DataError):
        ZipFiles(path).read("a.png", 2**20)


def test_an_image_over_the_limit_is_refused_while_it_is_read(tmp_path: Path) -> None:
    files = ZipFiles(_archive(tmp_path / "a.zip", {"a.png": bytes(1001)}))
    with pytest.raises(DataError, match="more than 1000 bytes") as caught:
        files.read("a.png", 1000)
    assert caught.value.code == "image_too_large"


def test_a_damaged_entry_is_a_bad_row(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a.png", "rejected": "b.png"}
    entries = {"pairs.jsonl": json.dumps(row).encode(), "a.png": image_bytes(0), "b.png": image_bytes(1)}
    path = _archive(tmp_path / "a.zip", entries)
    data = bytearray(path.read_bytes())
    start = data.index(b"a.png")
    data[start + 500] ^= 0xFF
    path.write_bytes(bytes(data))
    source = open_preferences(path)
    (read,) = source.read(source.annotations())
    assert isinstance(read, BadRow)
    assert read.code == "missing_image"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_half_an_upload_is_refused(tmp_path: Path, share: float) -> None:
    path = zip_folder(write_jsonl_folder(tmp_path / "data", rows(3)), tmp_path / "a.zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"a\.zip: not a readable zip") as caught:
        open_preferences(path)
    assert caught.value.code == "unreadable_file"


def test_what_macos_adds_is_ignored(tmp_path: Path) -> None:
    folder = write_jsonl_folder(tmp_path / "data", rows(2))
    path = zip_folder(folder, tmp_path / "a.zip", "data/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/data/._pairs.jsonl", b"\0\5\x16\7")
        archive.writestr("data/._pairs.jsonl", b"\0\5\x16\7")
    source = open_preferences(path)
    assert len([row for row in source.read(source.annotations()) if not isinstance(row, BadRow)]) == 2


def test_a_zip_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.parquet, .*\*\.jsonl"):
        open_preferences(_archive(tmp_path / "a.zip", {"a.png": b"x"}))
