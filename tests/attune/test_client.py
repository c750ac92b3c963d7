"""The client gets over broken connections, trusts no bytes and no paths, and tells problems as they are."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import attune
from attune.client import Client
from attune.downloads import inside
from attune.errors import AttuneError
from tests.attune.rude_server import CONTENT, LINE_ENDS_OF_PROSE, NUM_EVENTS, RudeServer, rude_server
from tests.servers.process import free_port

LORA = "pytorch_lora_weights.safetensors"
KOHYA = "pytorch_lora_weights_kohya.safetensors"


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with rude_server() as running:
        yield running


@pytest.fixture
def client(server: RudeServer) -> Iterator[Client]:
    with Client(server.url) as connected:
        yield connected


def test_attune_itself_has_the_client_and_its_error_and_imports_them_when_used() -> None:
    code = "import sys, attune; assert 'httpx' not in sys.modules; print(attune.Client.__name__, attune.AttuneError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Client AttuneError\n", "")
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        attune.Clinet  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_events_go_on_after_each_lost_connection_without_gap_or_repeat(server: RudeServer, client: Client) -> None:
    seen = list(client.events("job_1"))
    assert [event.sequence for event in seen] == list(range(1, NUM_EVENTS + 1))
    assert [headers.get("Last-Event-ID") for _, headers in server.requests] == [None, "evt_2", "evt_4"]


def test_a_line_separator_in_a_text_does_not_end_an_event(client: Client) -> None:
    assert {event.data["note"] for event in client.events("job_1")} == {LINE_ENDS_OF_PROSE}


def test_a_proxys_error_is_waited_out_and_a_missing_job_is_told(server: RudeServer, client: Client) -> None:
    server.statuses = [502, 503]
    assert len(list(client.events("job_1"))) == NUM_EVENTS
    server.statuses = [404]
    with pytest.raises(AttuneError):
        list(client.events("job_1"))


def test_an_event_of_an_unknown_type_is_still_shown(client: Client) -> None:
    event = next(client.events("job_1")).model_copy(update={"data": {"type": "from_the_future"}})
    assert event.event is None


def test_a_download_is_resumed_where_it_broke_off(server: RudeServer, client: Client, tmp_path: Path) -> None:
    client.download_checkpoint("ckpt_1", tmp_path)
    assert (tmp_path / LORA).read_bytes() == CONTENT
    ranges = [headers.get("Range") for path, headers in server.requests if "/files/" in path]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert [path.name for path in tmp_path.iterdir()] == [LORA], "training state was not asked for"


def test_a_server_without_ranges_sends_it_all_again(server: RudeServer, client: Client, tmp_path: Path) -> None:
    server.honours_ranges = False
    server.pieces = [300_000, 200_000, len(CONTENT)]
    client.download_checkpoint("ckpt_1", tmp_path)
    assert (tmp_path / LORA).read_bytes() == CONTENT


def test_a_server_that_sends_nothing_more_is_given_up(server: RudeServer, client: Client, tmp_path: Path) -> None:
    server.pieces = [300_000] + [0] * 10
    with pytest.raises(AttuneError, match="did not answer"):
        client.download_checkpoint("ckpt_1", tmp_path)
    server.pieces = []
    client.download_checkpoint("ckpt_1", tmp_path)
    assert (tmp_path / LORA).read_bytes() == CONTENT


@pytest.fixture
def altering(server: RudeServer) -> RudeServer:
    server.content, server.pieces = CONTENT[:-1] + b"!", [len(CONTENT)]
    return server


@pytest.mark.usefixtures("altering")
def test_altered_bytes_never_get_the_files_name(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match="sha256"):
        client.download_checkpoint("ckpt_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_fetched_again(server: RudeServer, client: Client, tmp_path: Path) -> None:
    (tmp_path / LORA).write_bytes(CONTENT)
    client.download_checkpoint("ckpt_1", tmp_path)
    assert not [path for path, _ in server.requests if "/files/" in path]


def test_a_server_cannot_write_outside_of_the_folder(server: RudeServer, client: Client, tmp_path: Path) -> None:
    server.paths = ("../evil.safetensors",)
    with pytest.raises(AttuneError, match="not relative"):
        client.download_checkpoint("ckpt_1", tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../../b", "..", "a\\b", "c:evil", ""])
def test_unsafe_names_are_refused(path: str) -> None:
    with pytest.raises(AttuneError, match="not relative"):
        inside(path)


def test_a_problem_is_told_with_its_code_and_fields(client: Client) -> None:
    with pytest.raises(AttuneError) as caught:
        client.get_job("job_1")
    assert (caught.value.status, caught.value.code) == (404, "job_not_found")
    assert str(caught.value) == "there is no job [job_not_found]\n  /id: unknown"


def test_an_answer_that_is_no_problem_document_is_an_error_too() -> None:
    error = AttuneError.of_response(httpx.Response(502, text="<html>bad gateway</html>"))
    assert (error.status, error.code) == (502, "no_problem_document")


def test_a_server_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(AttuneError, match=f"{url} did not answer") as caught:
        client.get_job("job_1")
    assert caught.value.status is None


def test_the_api_key_is_sent(server: RudeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_API_KEY", "from-the-environment")
    with Client(server.url) as client, pytest.raises(AttuneError):
        client.get_job("job_1")
    assert {key.lower(): value for key, value in server.requests[0][1].items()}["authorization"] == (
        "Bearer from-the-environment"
    )


def test_an_id_asks_for_a_thing_of_that_name_and_for_nothing_else(server: RudeServer, client: Client) -> None:
    with pytest.raises(AttuneError):
        client.get_job("../../healthz?x=#y")
    assert [path for path, _ in server.requests] == ["/v1/jobs/..%2F..%2Fhealthz%3Fx%3D%23y?wait=0"]


def test_a_file_name_with_signs_of_a_url_is_asked_for_as_it_is(
    server: RudeServer, client: Client, tmp_path: Path
) -> None:
    server.paths = ("a #1?/100%.bin",)
    client.download_checkpoint("ckpt_1", tmp_path)
    assert (tmp_path / "a #1?" / "100%.bin").read_bytes() == CONTENT
    assert server.requests[1][0] == "/v1/checkpoints/ckpt_1/files/a%20%231%3F/100%25.bin"


def test_an_answer_of_some_other_server_is_told(client: Client) -> None:
    with pytest.raises(AttuneError, match="is it the address of an Attune server"):
        client.get_job("job_html")


def test_what_the_detail_says_already_is_not_said_twice() -> None:
    errors = [{"pointer": f"/{name}", "message": "is wrong"} for name in "abcd"]
    detail = "; ".join(f"/{name}: is wrong" for name in "abc")
    one = AttuneError({"code": "invalid_request", "detail": "/a: is wrong", "errors": errors[:1]})
    assert str(one) == "/a: is wrong [invalid_request]"
    many = AttuneError({"code": "invalid_request", "detail": detail, "errors": errors})
    assert str(many).splitlines() == [
        "4 things are wrong [invalid_request]",
        *(f"  /{name}: is wrong" for name in "abcd"),
    ]


def test_a_lora_for_other_tools_is_downloaded_as_one_file(server: RudeServer, client: Client, tmp_path: Path) -> None:
    server.paths = (LORA, KOHYA)
    path = client.download_weights("ckpt_1", tmp_path / "loras" / "mine.safetensors", format="kohya")
    assert path.read_bytes() == CONTENT
    assert server.requests[-1][0] == f"/v1/checkpoints/ckpt_1/files/{KOHYA}"
    server.paths = (LORA,)
    with pytest.raises(AttuneError, match=f"has no {KOHYA}"):
        client.download_weights("ckpt_1", tmp_path / "other.safetensors", format="kohya")
