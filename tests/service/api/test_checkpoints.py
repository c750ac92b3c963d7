"""Downloads: single files with ranges, archives as a stream, links on S3, and nothing beside what is listed."""

import io
import itertools
import zipfile
import zlib

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.archive import Archive, Member
from service.api.ranges import RangeNotSatisfiableError, parse_range
from service.store.models import CheckpointFile
from tests.service.api.world import CHECKPOINT_FILES, Api, assert_problem

WEIGHTS = "pytorch_lora_weights.safetensors"
CONTENT = CHECKPOINT_FILES[WEIGHTS]


@pytest.fixture
def checkpoint(api: Api) -> str:
    """Address of a checkpoint of the embedded service."""
    job_id = api.new_job()
    api.run(job_id)
    return f"/v1/checkpoints/{api.checkpoint_id(job_id)}"


def test_checkpoint_and_its_files_are_described(any_api: Api):
    job_id = any_api.new_job()
    any_api.run(job_id)
    page = any_api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()
    (listed,) = page["data"]
    checkpoint = any_api.client.get(f"/v1/checkpoints/{listed['id']}").json()
    assert checkpoint == listed
    assert (checkpoint["job_id"], checkpoint["step"], checkpoint["kind"]) == (job_id, 4, "lora")
    assert checkpoint["size_bytes"] == sum(map(len, CHECKPOINT_FILES.values()))
    files = any_api.client.get(f"/v1/checkpoints/{listed['id']}/files").json()["data"]
    assert {file["path"]: file["size_bytes"] for file in files} == {
        path: len(content) for path, content in CHECKPOINT_FILES.items()
    }
    for file in files:
        content = any_api.download(f"/v1/checkpoints/{listed['id']}/files/{file['path']}")
        assert content == CHECKPOINT_FILES[file["path"]]


def test_checkpoints_are_listed_in_pages_by_step(api: Api):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    for step in (1, 2, 3):
        api.save_checkpoint(job_id, attempt, step, {"manifest.json": b"{}"})
    first = api.client.get(f"/v1/jobs/{job_id}/checkpoints?limit=2")
    rest = api.client.get(first.links["next"]["url"]).json()
    assert [one["step"] for one in first.json()["data"] + rest["data"]] == [1, 2, 3]
    assert not rest["has_more"]
    newest = api.client.get(f"/v1/jobs/{job_id}/checkpoints?limit=2&newest_first=true")
    older = api.client.get(newest.links["next"]["url"]).json()
    assert [(one["step"], one["num_files"]) for one in newest.json()["data"] + older["data"]] == [
        (3, 1),
        (2, 1),
        (1, 1),
    ]
    unknown = api.client.get(f"/v1/jobs/{job_id}/checkpoints?after=ckpt_unknown")
    assert assert_problem(unknown, 422, "invalid_request")["errors"][0]["pointer"] == "query:after"


def test_file_comes_whole_with_its_hash_as_etag(api: Api, checkpoint: str):
    answer = api.client.get(f"{checkpoint}/files/{WEIGHTS}")
    (listed,) = [one for one in api.client.get(f"{checkpoint}/files").json()["data"] if one["path"] == WEIGHTS]
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{listed["sha256"]}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{WEIGHTS}"')
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_head_tells_the_same_without_the_bytes(api: Api, checkpoint: str):
    whole, head = (api.client.request(verb, f"{checkpoint}/files/{WEIGHTS}") for verb in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "accept-ranges", "content-length", "content-disposition", "content-type"):
        assert head.headers[name] == whole.headers[name]
    assert api.client.head(f"{checkpoint}/files/nothing").status_code == 404


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=8000-", 8000, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        ("bytes=8000-999999", 8000, SIZE),
        ("Bytes=8000-", 8000, SIZE),
    ],
)
def test_range_comes_as_206(api: Api, checkpoint: str, asked: str, start: int, stop: int):
    answer = api.client.get(f"{checkpoint}/files/{WEIGHTS}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:stop])
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "lines=0-1", "bytes=5-1", "bytes=-", "bytes"])
def test_range_that_is_not_understood_is_ignored(api: Api, checkpoint: str, asked: str):
    answer = api.client.get(f"{checkpoint}/files/{WEIGHTS}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_range_behind_the_end_answers_416(api: Api, checkpoint: str):
    answer = api.client.get(f"{checkpoint}/files/{WEIGHTS}", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_conditional_requests_save_the_transfer_and_guard_a_resume(api: Api, checkpoint: str):
    url = f"{checkpoint}/files/{WEIGHTS}"
    etag = api.client.get(url).headers["etag"]
    unchanged = api.client.get(url, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    resumed = api.client.get(url, headers={"Range": "bytes=9-", "If-Range": etag})
    assert (resumed.status_code, resumed.content) == (206, CONTENT[9:])
    changed = api.client.get(url, headers={"Range": "bytes=9-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, CONTENT)
    shrunk = api.client.get(url, headers={"Range": "bytes=999999-", "If-Range": '"other"'})
    assert (shrunk.status_code, shrunk.content) == (200, CONTENT), "the range was of the larger file that is gone"


@pytest.mark.parametrize(
    "path",
    [
        "../manifest.json",
        "..%2F..%2F..%2Fattune.sqlite3",
        "training_state/%2E%2E/manifest.json",
        "training_state%2F..%2Fmanifest.json",
        "%2Fetc%2Fpasswd",
        "/etc/passwd",
        "%2E/manifest.json",
        "manifest.json/",
        "manifest.json%00",
        "..%5C..%5Cattune.sqlite3",
        "training_state",
        "",
    ],
)
def test_only_listed_paths_exist(api: Api, checkpoint: str, path: str):
    answer = api.client.get(f"{checkpoint}/files/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_download_is_one_flat_zip_of_what_diffusers_loads(any_api: Api):
    job_id = any_api.new_job()
    any_api.run(job_id)
    checkpoint_id = any_api.checkpoint_id(job_id)
    answer = any_api.client.get(f"/v1/checkpoints/{checkpoint_id}/download")
    assert answer.headers["content-type"] == "application/zip"
    assert f'filename="{checkpoint_id}.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path: CHECKPOINT_FILES[path] for path in ("manifest.json", WEIGHTS)
        }
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_download_holds_the_training_state_when_asked(api: Api, checkpoint: str):
    answer = api.client.get(f"{checkpoint}/download?include=all")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == CHECKPOINT_FILES


def test_broken_download_of_an_archive_goes_on(any_api: Api):
    job_id = any_api.new_job()
    any_api.run(job_id)
    url = f"/v1/checkpoints/{any_api.checkpoint_id(job_id)}/download"
    head, whole = any_api.client.head(url), any_api.client.get(url)
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    middle = len(whole.content) // 2
    rest = any_api.client.get(url, headers={"Range": f"bytes={middle}-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[middle:])
    changed = any_api.client.get(url, headers={"Range": f"bytes={middle}-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    unchanged = any_api.client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert unchanged.status_code == 304
    assert any_api.client.get(f"{url}?include=all").headers["etag"] != whole.headers["etag"]


def test_checksum_of_an_older_file_is_computed_once(api: Api, checkpoint: str):
    api.client.get(f"{checkpoint}/download?include=all")
    with api.parts.store.read() as session:
        kept = {file.path: file.crc32 for file in session.scalars(sa.select(CheckpointFile))}
    assert kept == {path: zlib.crc32(content) for path, content in CHECKPOINT_FILES.items()}


def test_lora_weights_come_as_one_file(api: Api, checkpoint: str):
    answer = api.client.get(f"{checkpoint}/download?format=safetensors", headers={"Range": "bytes=1-2"})
    assert (answer.status_code, answer.content) == (206, CONTENT[1:3])
    job_id = api.new_job()
    api.save_checkpoint(job_id, api.claim(job_id), 1, {"pipeline/unet/config.json": b"{}"})
    without = api.client.get(f"/v1/checkpoints/{api.checkpoint_id(job_id)}/download?format=safetensors")
    assert_problem(without, 404, "format_not_available")


def test_a_lora_comes_under_kohyas_names_too(api: Api, checkpoint: str):
    kohya = "pytorch_lora_weights_kohya.safetensors"
    job_id = api.new_job()
    api.save_checkpoint(job_id, api.claim(job_id), 1, {WEIGHTS: b"for diffusers", kohya: b"for the others"})
    checkpoint_id = api.checkpoint_id(job_id)
    answer = api.client.get(f"/v1/checkpoints/{checkpoint_id}/download?format=kohya")
    assert (answer.status_code, answer.content) == (200, b"for the others")
    assert f'filename="{checkpoint_id}.safetensors"' in answer.headers["content-disposition"]
    without = api.client.get(f"{checkpoint}/download?format=kohya")  # of a family whose training saves no such file
    assert (without.status_code, without.json()["format"]) == (202, "kohya")


def test_s3_downloads_are_links_that_name_the_file(deployed_api: Api):
    job_id = deployed_api.new_job()
    deployed_api.run(job_id)
    url = f"/v1/checkpoints/{deployed_api.checkpoint_id(job_id)}/files/{WEIGHTS}"
    link = deployed_api.client.get(url, follow_redirects=False)
    assert link.status_code == 307
    assert link.headers["cache-control"] == "no-store"
    answer = httpx.get(link.headers["location"], headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, CONTENT[10:20])
    assert WEIGHTS in answer.headers["content-disposition"]
    head = deployed_api.client.head(url, follow_redirects=False)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(CONTENT)))


@pytest.mark.parametrize("name", ["ckpt_" + "0" * 26, "nope", "job_" + "0" * 26])
def test_unknown_checkpoints_answer_404(api: Api, name: str):
    for path in ("", "/files", f"/files/{WEIGHTS}", "/download"):
        assert_problem(api.client.get(f"/v1/checkpoints/{name}{path}"), 404, "checkpoint_not_found")


# --- the pure parts ------------------------------------------------------------------------------------------------


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_parsed_range_is_what_slicing_gives(size: int, first: int, last: int):
    content = bytes(range(size))
    for header, expected in [
        (f"bytes={first}-{last}", content[first : last + 1]),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[max(0, size - last) :]),
    ]:
        try:
            part = parse_range(header, size)
        except RangeNotSatisfiableError:
            assert expected == b""
            continue
        if part is None:
            assert header == f"bytes={first}-{last}"
            assert last < first
        else:
            assert content[part.start : part.start + part.length] == expected != b""


@given(header=st.text(max_size=30))
def test_any_header_is_a_range_or_none(header: str):
    try:
        part = parse_range(header, 10)
    except RangeNotSatisfiableError:
        return
    assert part is None or (part.start >= 0 and part.length > 0 and part.start + part.length <= 10)


def member(path: str, content: bytes) -> Member:
    return Member(path, len(content), "", zlib.crc32(content), lambda first, last: iter((content[first:last],)))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-zé]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=400), max_size=5
    ),
    cuts=st.lists(st.integers(0, 3000), max_size=4),
)
def test_archive_reads_back_and_its_parts_make_the_whole(files: dict[str, bytes], cuts: list[int]):
    archive = Archive([member(path, content) for path, content in files.items()])
    whole = b"".join(archive.open_range())
    assert len(whole) == archive.size_bytes
    with zipfile.ZipFile(io.BytesIO(whole)) as found:
        assert found.testzip() is None
        assert {name: found.read(name) for name in found.namelist()} == files
    ends = sorted({0, archive.size_bytes, *(cut for cut in cuts if cut < archive.size_bytes)})
    parts = [b"".join(archive.open_range(first, last)) for first, last in itertools.pairwise(ends)]
    assert b"".join(parts) == whole


class OnDemand(io.RawIOBase):
    """An archive as a file of which only what is asked for is made."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self._position = archive, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._archive.size_bytes)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._archive.size_bytes if size < 0 else min(self._position + size, self._archive.size_bytes)
        found = b"".join(self._archive.open_range(self._position, end))
        self._position += len(found)
        return found


def test_archive_of_more_than_four_gibibytes_is_read_by_others():
    size = 5 * 2**30
    large = Member("unet.safetensors", size, "", 7, lambda first, last: iter((bytes(last - first),)))
    archive = Archive([member("a.json", b"{}"), large, member("z.json", b"last")])
    with zipfile.ZipFile(OnDemand(archive)) as found:  # pyright: ignore[reportArgumentType]
        assert [(info.filename, info.file_size) for info in found.infolist()] == [
            ("a.json", 2),
            ("unet.safetensors", size),
            ("z.json", 4),
        ]
        assert found.getinfo("z.json").header_offset > 2**32
        assert (found.read("a.json"), found.read("z.json")) == (b"{}", b"last")
        with found.open("unet.safetensors") as weights:
            assert weights.read(10) == bytes(10)


def test_archive_opens_a_file_when_its_turn_comes():
    opened: list[str] = []

    def opening(name: str) -> Member:
        return Member(name, 3, "", 0, lambda *_: iter((opened.append(name) or b"123",)))

    stream = Archive([opening("a"), opening("b"), opening("c")]).open_range()
    assert (next(stream)[:4], next(stream)) == (b"PK\x03\x04", b"123")
    assert opened == ["a"]
    list(stream)
    assert opened == ["a", "b", "c"]
