"""The reference server of the documentation, started as a reader would, and a server that does what none should."""

import base64
import io
import json
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from alignment_core.addresses import is_public
from alignment_core.errors import AlignmentError
from alignment_core.rewards.build import build_reward
from alignment_core.rewards.remote import Remote
from alignment_core.rewards.signed_post import MAX_ANSWER_BYTES, Access, SignedPost, signature
from alignment_core.spec import RewardSpec
from alignment_core.spec.rewards import PRINTED_ASCII
from tests.alignment_core.rewards.certificates import write_certificate

SECRET = "a secret of the operator's"
CPU = torch.device("cpu")
REFERENCE_SERVER = Path(__file__).parents[3] / "docs" / "reward_server.py"
LOCAL = Access(SECRET, frozenset({"127.0.0.1", "localhost"}))

Answer = tuple[int, dict[str, str], bytes]


def images(num: int = 2) -> torch.Tensor:
    return torch.rand(num, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def parse(**fields: object) -> RewardSpec:
    return TypeAdapter[RewardSpec](RewardSpec).validate_python({"type": "remote", **fields})


# --- the reference server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "ATTUNE_REMOTE_REWARD_SECRET": SECRET}
    command = [sys.executable, str(REFERENCE_SERVER), str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}/score"
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the reference server did not start"
            time.sleep(0.05)


def test_the_documented_server_scores_images(reference_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_REMOTE_REWARD_SECRET", SECRET)
    monkeypatch.setenv("ATTUNE_REMOTE_REWARD_HOSTS", "rewards.example.org, 127.0.0.1")
    reward = build_reward(parse(url=reference_server, batch_size=2), CPU)
    x = torch.zeros(3, 3, 8, 8)
    x[0, 0], x[1, 1], x[2] = 1, 1, 0.6
    scores = reward(x, ["red", "green", "grey"])
    torch.testing.assert_close(scores, torch.tensor([1.0, -0.5, 0.0]))
    assert scores.dtype == torch.float32
    assert not reward.differentiable


def test_the_documented_server_refuses_another_secret(reference_server: str) -> None:
    post = SignedPost(reference_server, Access("another secret", LOCAL.hosts), 10, 3)
    with pytest.raises(AlignmentError, match="answered 403, expected 200") as raised:
        Remote(post, 4)(images(), ["", ""])
    assert raised.value.code == "remote_reward_refused"


def test_the_documented_server_refuses_a_replayed_request(
    reference_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 400)
    with pytest.raises(AlignmentError, match="answered 403"):
        Remote(SignedPost(reference_server, LOCAL, 10, 1), 4)(images(), ["", ""])


def test_the_documented_server_is_about_thirty_lines() -> None:
    code = REFERENCE_SERVER.read_text().split("from PIL")[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 32


# --- a server that is told what to answer --------------------------------------------------------------------------


class ScriptedServer:
    """Gives its answers one after the other, the last one for ever, and keeps what it was asked."""

    def __init__(self, answers: list[Answer], *, drip_seconds: float = 0) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                script.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status, headers, content = answers[min(len(script.requests), len(answers)) - 1]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for start in range(0, len(content), 1 if drip_seconds else 2**16):
                        self.wfile.write(content[start : start + (1 if drip_seconds else 2**16)])
                        time.sleep(drip_seconds)
                except OSError:
                    pass  # the client has heard enough

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@contextmanager
def serving(answers: list[Answer], *, drip_seconds: float = 0, tls: ssl.SSLContext | None = None):
    script = ScriptedServer(answers, drip_seconds=drip_seconds)
    if tls is not None:
        script.server.socket = tls.wrap_socket(script.server.socket, server_side=True)
    thread = threading.Thread(target=script.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield script
    finally:
        script.server.shutdown()
        script.server.server_close()
        thread.join()


def good(*scores: float) -> Answer:
    return 200, {}, json.dumps({"scores": scores}).encode()


def ask(script: ScriptedServer, num: int = 2, *, attempts: int = 3, timeout: float = 10, batch: int = 16):
    post = SignedPost(f"http://127.0.0.1:{script.port}/score", LOCAL, timeout, attempts, first_pause_seconds=0.01)
    return Remote(post, batch)(images(num), [f"prompt {index}" for index in range(num)])


def test_a_request_holds_png_images_and_prompts_and_is_signed() -> None:
    with serving([good(1, 2)]) as script:
        assert ask(script).tolist() == [1, 2]
    ((headers, body),) = script.requests
    content = json.loads(body)
    assert set(content) == {"images", "prompts"}
    assert content["prompts"] == ["prompt 0", "prompt 1"]
    picture = Image.open(io.BytesIO(base64.b64decode(content["images"][1])))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (6, 8))
    expected = (images()[1] * 255).round().byte().permute(1, 2, 0).numpy().tobytes()
    assert picture.tobytes() == expected
    assert headers["x-attune-signature"] == signature(SECRET, headers["x-attune-timestamp"], body)
    assert abs(int(headers["x-attune-timestamp"]) - time.time()) < 30
    assert headers["host"] == f"127.0.0.1:{script.port}"
    assert SECRET not in str(headers)


def test_the_signature_is_the_documented_one() -> None:
    # printf '1700000000.{"a": 1}' | openssl dgst -sha256 -hmac secret
    expected = "942c6f7e34ef5c448cbbbf79276da392036d59f0bd9fb74ba14eb8e83e2bb6cd"
    assert signature("secret", "1700000000", b'{"a": 1}') == expected


def test_many_images_go_in_batches_and_come_back_in_order() -> None:
    with serving([good(1, 2), good(3, 4), good(5)]) as script:
        assert ask(script, 5, batch=2).tolist() == [1, 2, 3, 4, 5]
    assert [len(json.loads(body)["prompts"]) for _, body in script.requests] == [2, 2, 1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_may_pass_is_tried_again(status: int) -> None:
    with serving([(status, {}, b""), (status, {}, b""), good(1, 2)]) as script:
        assert ask(script).tolist() == [1, 2]
    assert len(script.requests) == 3


def test_the_last_attempt_is_the_last() -> None:
    with (
        serving([(503, {}, b"")]) as script,
        pytest.raises(AlignmentError, match=r"at 127\.0\.0\.1 failed 3 times, at last with status 503") as raised,
    ):
        ask(script)
    assert len(script.requests) == 3
    assert (raised.value.code, raised.value.retryable) == ("remote_reward_unavailable", True)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with serving([good(1)]) as script:
        pass
    with pytest.raises(AlignmentError, match="at last with ConnectError"):
        ask(script)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving([good(1, 2)]) as target:
        answer = (status, {"Location": f"http://127.0.0.1:{target.port}/"}, b"")
        with serving([answer]) as script, pytest.raises(AlignmentError, match=f"answered {status}"):
            ask(script)
    assert (len(script.requests), len(target.requests)) == (1, 0)


def test_an_answer_that_never_ends_is_cut_off() -> None:
    endless = (200, {}, b"[" + b" " * (MAX_ANSWER_BYTES + 2**20))
    with serving([endless]) as script, pytest.raises(AlignmentError, match="larger than 1048576 bytes"):
        ask(script)


def test_a_slow_drip_is_a_timeout() -> None:
    started = time.monotonic()
    with (
        serving([good(*[1.0] * 40)], drip_seconds=0.1) as script,
        pytest.raises(AlignmentError, match=r"no whole answer in 0\.3 s"),
    ):
        ask(script, attempts=1, timeout=0.3)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b"[" * 100_000,
        b"[1, 2]",
        b'{"scores": 1}',
        b'{"scores": [1]}',
        b'{"scores": [1, "2"]}',
        b'{"scores": [1, true]}',
        b'{"scores": [1, null]}',
        b'{"scores": [1, NaN]}',
        b'{"scores": [1, 1' + b"0" * 400 + b"]}",
    ],
)
def test_an_answer_that_is_not_one_number_an_image_is_refused(content: bytes) -> None:
    with serving([(200, {}, content)]) as script, pytest.raises(AlignmentError) as raised:
        ask(script)
    assert raised.value.code == "remote_reward_invalid"
    assert len(script.requests) == 1


def test_a_pickle_is_not_even_looked_at(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple:
            return (Path.write_text, (tmp_path / "proof", "owned"))

    answer = (200, {"Content-Type": "application/octet-stream"}, pickle.dumps(Exploit()))
    with serving([answer]) as script, pytest.raises(AlignmentError, match="no JSON"):
        ask(script)
    assert not (tmp_path / "proof").exists()


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ssl.SSLContext]:
    def context(host: str) -> ssl.SSLContext:
        write_certificate(host, tmp_path / "cert.pem", tmp_path / "key.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        return found

    return context


def test_the_certificate_must_name_the_host_though_the_connection_goes_to_an_address(
    tls: Callable[[str], ssl.SSLContext],
) -> None:
    with serving([good(1, 2)], tls=tls("localhost")) as script:
        post = SignedPost(f"https://localhost:{script.port}/", LOCAL, 10, 1)
        assert Remote(post, 16)(images(), ["", ""]).tolist() == [1, 2]
    assert script.requests[0][0]["host"] == f"localhost:{script.port}"


def test_a_certificate_of_another_host_is_refused(tls: Callable[[str], ssl.SSLContext]) -> None:
    with (
        serving([good(1, 2)], tls=tls("elsewhere.example")) as script,
        pytest.raises(AlignmentError, match="at last with ConnectError"),
    ):
        Remote(SignedPost(f"https://localhost:{script.port}/", LOCAL, 10, 1), 16)(images(), ["", ""])
    assert script.requests == []


# --- what may be reached -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1"),
        *("::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::a00:1"),
    ],
)
def test_addresses_that_only_some_can_reach_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_everyone_can_reach_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_private_address_needs_the_operators_leave(host: str) -> None:
    with serving([good(1, 2)]) as script:
        post = SignedPost(f"http://{host}:{script.port}/", Access(SECRET), 10, 3)
        with pytest.raises(AlignmentError, match=f"{host} has a private address") as raised:
            Remote(post, 16)(images(), ["", ""])
    assert (raised.value.code, script.requests) == ("remote_reward_forbidden", [])


def test_a_list_of_hosts_is_the_whole_list() -> None:
    with serving([good(1, 2)]) as script:
        post = SignedPost(f"http://127.0.0.1:{script.port}/", Access(SECRET, frozenset({"example.org"})), 10, 3)
        with pytest.raises(AlignmentError, match="is not one of the hosts in ATTUNE_REMOTE_REWARD_HOSTS"):
            Remote(post, 16)(images(), ["", ""])
    assert script.requests == []


def test_proxies_of_the_environment_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([good(9, 9)]) as proxy, serving([good(1, 2)]) as script:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert ask(script).tolist() == [1, 2]
    assert proxy.requests == []


def test_without_a_secret_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTUNE_REMOTE_REWARD_SECRET", raising=False)
    with pytest.raises(AlignmentError, match="ATTUNE_REMOTE_REWARD_SECRET is not set") as raised:
        build_reward(parse(url="https://rewards.example.org/"), CPU)
    assert raised.value.code == "remote_reward_secret_missing"


def test_what_the_operator_allows_is_read_from_the_environment_and_never_shown() -> None:
    variables = {"ATTUNE_REMOTE_REWARD_SECRET": SECRET, "ATTUNE_REMOTE_REWARD_HOSTS": "a.example, B.example,"}
    access = Access.from_environment(variables)
    assert access == Access(SECRET, frozenset({"a.example", "b.example"}))
    assert SECRET not in repr(access)
    assert Access.from_environment({**variables, "ATTUNE_REMOTE_REWARD_HOSTS": ""}).hosts == frozenset()
    del variables["ATTUNE_REMOTE_REWARD_HOSTS"]
    assert Access.from_environment(variables).hosts is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://rewards.example.org/", "expected https, since rewards.example.org is not the machine that trains"),
        ("ftp://rewards.example.org/", "expected https://HOST"),
        ("file:///etc/passwd", "expected https://HOST"),
        ("https:///score", "expected https://HOST"),
        ("rewards.example.org", "expected https://HOST"),
        ("https://rewards.example.org:port/", "expected https://HOST"),
        ("https://rewards.example.org:99999/", "expected https://HOST"),
        ("https://user:pass@rewards.example.org/", "no user, query or fragment"),
        ("https://rewards.example.org/?key=1", "no user, query or fragment"),
        ("https://rewards.example.org/#x", "no user, query or fragment"),
        ("https://rewards.example.org/a b", PRINTED_ASCII),
        ("https://rewards.example.org/\n", PRINTED_ASCII),
        ("https://r\u0435wards.example.org/", PRINTED_ASCII),
        ("https://[::1/", "expected https://HOST"),
    ],
)
def test_a_url_that_is_no_plain_https_address_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        parse(url=url)


@pytest.mark.parametrize("url", ["http://localhost:9000/", "http://[::1]:9000/", "https://Rewards.Example.org:8443/v1"])
def test_https_and_this_machine_are_taken(url: str) -> None:
    assert parse(url=url).type == "remote"
