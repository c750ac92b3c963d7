"""Webhooks as a real receiver sees them: signed, sent to the address that was looked at, in bounded time, at least once."""

import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.store import deliveries, jobs, webhooks
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.webhooks import DeliveryRecord, WebhookRecord
from service.store.webhook_secrets import new_secret
from tests.alignment_core.rewards.certificates import write_certificate
from tests.servers.process import wait_until
from tests.servers.receiver import Receiver, Reply, receiving
from tests.worker.conftest import World
from worker.parts import WorkerParts
from worker.webhook_post import Reach, post
from worker.webhooks import send_due, signed_headers, start_sending

NEAR = Reach(allow_private=True, timeout_seconds=10)
FAR = Reach(allow_private=False, timeout_seconds=10)
ROOT = Path(__file__).parents[2]
RECEIVER = ROOT / "docs" / "webhook_receiver.py"


def worker_of(world: World, name: str = "first", **settings: object) -> WorkerParts:
    values = {"webhooks_allow_private": True, "webhooks_poll_seconds": 0.02, **settings}
    parts = world.worker(name)
    return replace(parts, settings=parts.settings.model_copy(update=values))


def webhook(world: World, url: str, secret: str | None = None, **values: Any) -> WebhookRecord:
    sealer = world.settings.webhooks_sealer
    assert sealer is not None
    sealed = sealer.seal(secret or new_secret())
    return webhooks.create(world.store, project_id=PROJECT, url=url, sealed_secret=sealed, most=100, **values)


def cancel(world: World, number: int = 1) -> list[str]:
    """Ids of so many jobs that have just ended."""
    ids = [world.queue().id for _ in range(number)]
    for job_id in ids:
        jobs.request_cancel(world.store, PROJECT, job_id)
    return ids


def sent(world: World, hook: WebhookRecord) -> list[DeliveryRecord]:
    return list(deliveries.list_deliveries(world.store, PROJECT, hook.id, limit=100).data)[::-1]


def verified(secret: str, receiver: Receiver, index: int = 0) -> Any:
    request = receiver.requests[index]
    return Webhook(secret).verify(request.body, request.headers)


# --- what is sent --------------------------------------------------------------------------------------------------


def test_a_receiver_verifies_what_it_is_sent_with_the_specifications_library(world: World) -> None:
    secret = new_secret()
    with receiving([Reply(body=b"thank you")]) as receiver:
        hook = webhook(world, f"{receiver.url}?token=1", secret)
        (job_id,) = cancel(world)
        assert send_due(worker_of(world)) == 1
        payload = verified(secret, receiver)
        with pytest.raises(WebhookVerificationError):
            verified(new_secret(), receiver)
    (request,), (delivery,) = receiver.requests, sent(world, hook)
    assert (payload["type"], payload["data"]["id"]) == ("job.cancelled", job_id)
    assert request.path == "/hook?token=1"
    assert request.headers["webhook-id"] == delivery.id
    assert request.headers["content-type"] == "application/json"
    assert (delivery.state, delivery.tries[0].status, delivery.tries[0].answer) == ("delivered", 200, "thank you")


def test_both_secrets_verify_while_one_takes_the_others_place(world: World) -> None:
    old, new = new_secret(), new_secret()
    with receiving() as receiver:
        hook = webhook(world, receiver.url, old)
        sealer = world.settings.webhooks_sealer
        assert sealer is not None
        webhooks.rotate_secret(world.store, PROJECT, hook.id, sealer.seal(new), timedelta(hours=1))
        cancel(world)
        send_due(worker_of(world))
        assert verified(old, receiver) == verified(new, receiver)


def test_a_failure_is_sent_again_under_the_same_id_with_a_time_of_its_own(world: World) -> None:
    secret = new_secret()
    with receiving([Reply(503), Reply(200)]) as receiver:
        hook = webhook(world, receiver.url, secret)
        cancel(world)
        worker = worker_of(world)
        send_due(worker)
        (failed,) = sent(world, hook)
        assert (failed.state, failed.tries[0].status) == ("pending", 503)
        deliveries.redeliver(world.store, PROJECT, hook.id, failed.id)
        send_due(worker)
        assert verified(secret, receiver, 0) == verified(secret, receiver, 1)
    assert receiver.ids() == [failed.id] * 2
    assert [one.state for one in sent(world, hook)] == ["delivered"]


def test_the_receiver_of_the_documentation_takes_each_event_once(world: World) -> None:
    secret = new_secret()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "ATTUNE_WEBHOOK_SECRET": secret}
    command = [sys.executable, str(RECEIVER), str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: _answers(port), "the receiver listens")
            hook, forged = (webhook(world, f"http://127.0.0.1:{port}/", one) for one in (secret, new_secret()))
            worker = worker_of(world)
            deliveries.ping(world.store, PROJECT, forged.id)
            (job_id,) = cancel(world)
            webhooks.delete(world.store, PROJECT, forged.id)
            send_due(worker)
            (first,) = sent(world, hook)
            deliveries.redeliver(world.store, PROJECT, hook.id, first.id)
            send_due(worker)
            deliveries.ping(world.store, PROJECT, hook.id)
            send_due(worker)
            assert [[one.status for one in each.tries] for each in sent(world, hook)] == [[204, 204], [204]]
            assert process.stdout is not None
            assert [process.stdout.readline().strip() for _ in range(2)] == ["job.cancelled", "webhook.ping"]
            bad = signed_headers([new_secret()], "dlv_1", "{}")
            assert post(f"http://127.0.0.1:{port}/", bad, "{}", NEAR).status == 401
        finally:
            process.terminate()
    assert job_id.startswith("job_")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- what receivers do ---------------------------------------------------------------------------------------------


def test_redirects_are_not_followed() -> None:
    with receiving() as inner, receiving([Reply(302, {"Location": inner.url})]) as receiver:
        answer = post(receiver.url, {}, "{}", NEAR)
    assert (answer.status, answer.is_good, answer.error) == (302, False, "redirects are not followed")
    assert inner.requests == []


def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    drip = Reply(headers={"Content-Length": "1000"}, body=b"x" * 1000, pause_seconds=0.05)
    with receiving([drip]) as receiver:
        began = time.monotonic()
        answer = post(receiver.url, {}, "{}", replace(NEAR, timeout_seconds=0.5))
    assert (answer.status, answer.error) == (None, "no whole answer in 0.5 s")
    assert time.monotonic() - began < 20


def test_a_large_answer_is_read_as_far_as_it_is_shown() -> None:
    with receiving([Reply(500, {"Content-Length": str(2**40)}, b"a\0" + b"x" * 100_000)]) as receiver:
        answer = post(receiver.url, {}, "{}", NEAR)
    assert (answer.status, len(answer.answer), answer.answer[:3]) == (500, 500, "a\N{REPLACEMENT CHARACTER}x")


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [(429, "120", 120), (503, "7", 7), (500, "120", None), (429, "soon", None), (429, "", None)],
)
def test_retry_after_is_heard_where_it_means_something(status: int, said: str, seconds: int | None) -> None:
    with receiving([Reply(status, {"Retry-After": said})]) as receiver:
        answer = post(receiver.url, {}, "{}", NEAR)
    assert answer.retry_after == (None if seconds is None else timedelta(seconds=seconds))


def test_a_retry_after_may_be_a_date() -> None:
    with receiving([Reply(503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})]) as receiver:
        answer = post(receiver.url, {}, "{}", NEAR)
    assert answer.retry_after is not None
    assert answer.retry_after > timedelta(days=365)


def test_nobody_there_is_an_answer_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer = post(f"http://127.0.0.1:{port}/", {}, "{}", NEAR)
    assert answer.status is None
    assert answer.error is not None
    assert answer.error.startswith("ConnectError")
    answer = post("https://nowhere.invalid/", {}, "{}", FAR)
    assert (answer.status, (answer.error or "").partition(":")[0]) == (None, "gaierror")


def test_an_address_that_is_gone_is_disabled(world: World) -> None:
    with receiving([Reply(410)]) as receiver:
        hook = webhook(world, receiver.url)
        cancel(world, 2)
        assert send_due(worker_of(world)) == 1
    found = webhooks.get(world.store, PROJECT, hook.id)
    assert found is not None
    assert (found.enabled, found.disabled_because) == (False, "gone")


# --- where it may go -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
def test_a_private_address_is_not_asked(host: str) -> None:
    with receiving() as receiver:
        answer = post(f"https://{host}:{receiver.port}/", {}, "{}", FAR)
    assert answer.status is None
    assert (answer.error or "").endswith("has a private address")
    assert receiver.requests == []


@pytest.mark.parametrize("private", ["169.254.169.254", "10.0.0.1", "100.64.0.1", "127.0.0.1"])
def test_a_name_with_one_private_address_is_not_asked(monkeypatch: pytest.MonkeyPatch, private: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in ("93.184.216.34", private)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert post("https://hooks.example.org/", {}, "{}", FAR).error == "hooks.example.org has a private address"


def test_plain_http_stays_within_a_private_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    for reach in (NEAR, FAR):
        assert post("http://hooks.example.org/", {}, "{}", reach).error == "hooks.example.org is asked by https alone"


def test_a_name_is_looked_up_once_and_its_certificate_asked_for_at_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []

    def look_up(host: str, port: int, **_: object) -> list[Any]:
        lookups.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with receiving(tls=tls(tmp_path, monkeypatch, "hooks.example.org")) as receiver:
        answer = post(f"https://hooks.example.org:{receiver.port}/x?y=1", {}, "{}", NEAR)
        assert (answer.status, answer.error) == (200, None)
        assert post(f"https://other.example.org:{receiver.port}/", {}, "{}", NEAR).status is None
    (request,) = receiver.requests
    assert (request.headers["host"], request.path) == (f"hooks.example.org:{receiver.port}", "/x?y=1")
    assert lookups == ["hooks.example.org", "other.example.org"]


def tls(folder: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> ssl.SSLContext:
    write_certificate(host, folder / "cert.pem", folder / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return found


# --- several senders, and what befalls them ------------------------------------------------------------------------


def test_two_workers_side_by_side_send_each_event_once(world: World) -> None:
    workers = [worker_of(world, name) for name in ("first", "second")]
    with receiving() as receiver:
        hook = webhook(world, receiver.url)
        cancel(world, 12)
        threads = [start_sending(one) for one in workers]
        try:
            wait_until(lambda: all(one.state == "delivered" for one in sent(world, hook)), "all are sent")
        finally:
            for one in workers:
                one.shutting_down.set()
            for thread in threads:
                thread.join(timeout=30)
    assert sorted(receiver.ids()) == sorted(one.id for one in sent(world, hook))
    assert len(receiver.ids()) == 12


def test_an_address_that_is_slow_keeps_no_other_waiting(world: World) -> None:
    worker = worker_of(world)
    held = threading.Event()
    with receiving([Reply(body=b"at last", held=held)]) as stuck, receiving() as receiver:
        busy, _ = webhook(world, stuck.url), webhook(world, receiver.url)
        cancel(world, 4)
        thread = start_sending(worker)
        try:
            wait_until(lambda: len(receiver.ids()) == 4, "the quick one has all")
            assert len(stuck.ids()) <= deliveries.AT_ONCE
        finally:
            worker.shutting_down.set()
            held.set()
            thread.join(timeout=30)
    assert sum(one.state == "delivered" for one in sent(world, busy)) == len(stuck.ids())  # what was begun is noted


def test_a_crash_between_the_request_and_its_note_sends_again_under_the_same_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        hook = webhook(world, receiver.url)
        cancel(world)
        with monkeypatch.context() as crash:
            crash.setattr("worker.webhooks.LEASE_MARGIN_SECONDS", -20.0)
            crash.setattr(deliveries, "record", _crash)
            with pytest.raises(KeyboardInterrupt):
                send_due(worker_of(world))
        assert [(one.state, len(one.tries)) for one in sent(world, hook)] == [("pending", 0)]
        send_due(worker_of(world, "second"))
    (delivery,) = sent(world, hook)
    assert receiver.ids() == [delivery.id] * 2
    assert (delivery.state, delivery.attempt) == ("delivered", 2)


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_secret_that_no_key_opens_is_said_and_not_sent(world: World) -> None:
    with receiving() as receiver:
        hook = webhook(world, receiver.url)
        cancel(world)
        (world.settings.data_dir / "webhooks.key").write_text("x" * 64)
        send_due(worker_of(world))
    assert receiver.requests == []
    assert "no key in ATTUNE_WEBHOOKS_KEY opens" in (sent(world, hook)[0].tries[0].error or "")


def test_neither_a_secret_nor_an_address_gets_into_a_log(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from service.logs import configure_logging

    configure_logging()
    secret = new_secret()
    with caplog.at_level(logging.INFO), receiving() as receiver:
        webhook(world, f"{receiver.url}/token-of-mine", secret)
        cancel(world)
        send_due(worker_of(world))
    said = caplog.text + "".join(capfd.readouterr())
    assert json.dumps("webhook_sent") in said
    for private in ("token-of-mine", secret, "whsec_", receiver.requests[0].headers["webhook-signature"]):
        assert private not in said


def test_two_processes_that_send_at_once_send_each_delivery_once(world: World) -> None:
    """Of several addresses, whose answers take longer than a look for more: a lease that holds keeps the other away."""
    with receiving([Reply(body=b"x" * 10, pause_seconds=0.02)]) as receiver:
        hooks = [webhook(world, receiver.url) for _ in range(6)]
        cancel(world, 5)
        due = [one.id for hook in hooks for one in sent(world, hook)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.worker.sender_process", str(world.root), name],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("first", "second")
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            wait_until(
                lambda: {one.state for hook in hooks for one in sent(world, hook)} == {"delivered"},
                "every delivery",
                60,
            )
        finally:
            for process in processes:
                process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(receiver.ids()) == sorted(due)
    assert len(due) == 30


def test_processes_that_make_the_embedded_key_at_once_have_the_same(world: World) -> None:
    path = world.settings.data_dir / "webhooks.key"
    path.unlink(missing_ok=True)
    together, found = threading.Barrier(8), []

    def seal() -> None:
        together.wait(timeout=30)
        sealer = world.settings.webhooks_sealer
        assert sealer is not None
        found.append(sealer.seal("secret"))

    threads = [threading.Thread(target=seal) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealer = world.settings.webhooks_sealer
    assert sealer is not None
    assert {sealer.open(one) for one in found} == {"secret"}
    assert path.stat().st_mode & 0o077 == 0
    assert [one.name for one in path.parent.glob(".webhooks*")] == []
