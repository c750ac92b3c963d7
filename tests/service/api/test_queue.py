"""The bell on a real broker: rung after the commit, never waited for, never more often than there is work."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from attune.valkey import broker_url, find_server
from service.queue import Bell
from tests.servers.process import folder, running, wait_until
from tests.service.api.conftest import NewApi
from tests.service.api.world import PARQUET, spec_for


@pytest.fixture
def socket_file() -> Iterator[Path]:
    with folder("bell") as home:
        yield home / "valkey.sock"


@pytest.fixture
def valkey(socket_file: Path) -> Callable[[], "subprocess.Popen[bytes]"]:
    """Start a server on the socket; leave its context to stop it."""
    command = [find_server(), "--port", "0", "--unixsocket", socket_file, "--dir", socket_file.parent, "--save", ""]
    return lambda: running(command, socket_file.parent / "log")  # pyright: ignore[reportReturnType]


@dataclass
class Waiting:
    """How many rows the database would count."""

    jobs: int = 3
    datasets: int = 1


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def bell(socket_file: Path, waiting: Waiting) -> Iterator[Bell]:
    url = broker_url(socket_file)
    bell = Bell(
        url,
        num_jobs=lambda at_most: min(waiting.jobs, at_most),
        num_datasets=lambda at_most: min(waiting.datasets, at_most),
    )
    bell.start()
    yield bell
    bell.close()


def messages(socket_file: Path, queue: str) -> list[tuple[str, list[str]]]:
    """Task and arguments of each message that waits, the first one sent first."""
    with redis.Redis(unix_socket_path=str(socket_file)) as client:
        found = [json.loads(item) for item in client.lrange(queue, 0, -1)][::-1]  # pyright: ignore[reportGeneralTypeIssues]
    return [(one["headers"]["task"], json.loads(one["headers"]["argsrepr"].replace("'", '"'))) for one in found]


def test_jobs_and_data_sets_ring_in_the_queues_that_workers_read(socket_file: Path, valkey, bell: Bell):
    with valkey():
        wait_until(socket_file.exists, "the server")
        bell.check()
        bell.ring("job_1")
        bell.ring_dataset("ds_1")
        wait_until(lambda: len(messages(socket_file, "attune.datasets")) == 1, "the messages")
        assert messages(socket_file, "celery") == [("attune.run_job", ["job_1"])]
        assert messages(socket_file, "attune.datasets") == [("attune.prepare_dataset", ["ds_1"])]


def test_a_job_of_a_class_rings_in_the_queue_that_its_workers_read(new_api: NewApi, socket_file: Path, valkey):
    api = new_api(broker_url=broker_url(socket_file), resource_classes="small:1,large:8")
    with valkey():
        wait_until(socket_file.exists, "the server")
        in_four = {**spec_for(api.ready_dataset()), "resources": {"processes": 4}}
        large, small = (
            api.client.post("/v1/jobs", json={"spec": spec}).json()["id"]
            for spec in (in_four, {**in_four, "resources": {}})
        )
        wait_until(lambda: len(messages(socket_file, "celery.small")) == 1, "the message")
        assert messages(socket_file, "celery.small") == [("attune.run_job", [small])]
        assert messages(socket_file, "celery.large") == [("attune.run_job", [large])]
        assert messages(socket_file, "celery") == []


def test_a_job_whose_message_waits_already_is_not_rung_for_again(
    socket_file: Path, valkey, bell: Bell, waiting: Waiting
):
    waiting.jobs = 2
    with valkey():
        wait_until(socket_file.exists, "the server")
        for number in range(50):
            bell.ring(f"job_{number}")
        bell.ring_dataset("ds_1")
        wait_until(lambda: len(messages(socket_file, "attune.datasets")) == 1, "the last message")
        assert [arguments for _, arguments in messages(socket_file, "celery")] == [["job_0"], ["job_1"]]


def test_bell_rings_when_the_broker_comes_back(socket_file: Path, valkey, bell: Bell, waiting: Waiting):
    bell.ring("job_1")
    bell.ring("job_2")
    time.sleep(0.3)
    with valkey():
        wait_until(lambda: socket_file.exists() and len(messages(socket_file, "celery")) == 2, "the messages")
        assert [arguments for _, arguments in messages(socket_file, "celery")] == [["job_1"], ["job_2"]]
    waiting.jobs = 1
    bell.ring("job_3")  # on a connection that has died since
    with valkey():
        wait_until(lambda: messages(socket_file, "celery") == [("attune.run_job", ["job_3"])], "the message")


@pytest.mark.parametrize("kind", ["absent", "silent"])
def test_broker_that_does_not_answer_delays_no_answer_and_no_shutdown(new_api: NewApi, socket_file: Path, kind: str):
    with socket.socket(socket.AF_UNIX) as silent:
        if kind == "silent":  # accepts and never speaks
            silent.bind(str(socket_file))
            silent.listen(100)
        api = new_api(broker_url=broker_url(socket_file))
        started = time.monotonic()
        assert api.post_job().status_code == 201
        assert api.client.post("/v1/datasets", files={"file": ("a.parquet", PARQUET)}).status_code == 201
        assert time.monotonic() - started < 2
        assert api.client.get("/readyz").json()["checks"]["broker"]["ok"] is False
        assert time.monotonic() - started < 6
        started = time.monotonic()
        api.parts.bell.close()
        assert time.monotonic() - started < 4


def test_only_what_was_committed_is_rung_for(new_api: NewApi, socket_file: Path, valkey):
    with valkey():
        wait_until(socket_file.exists, "the server")
        api = new_api(broker_url=broker_url(socket_file))
        headers = {"Idempotency-Key": "k"}
        dataset_id = api.ready_dataset()
        from tests.service.api.world import spec_for

        body = {"spec": spec_for(dataset_id)}
        job_id = api.client.post("/v1/jobs", json=body, headers=headers).json()["id"]
        assert api.client.post("/v1/jobs", json=body, headers=headers).json()["id"] == job_id, "a replay"
        api.client.post("/v1/jobs", json={"spec": spec_for("ds_" + "0" * 26)})
        api.client.post(f"/v1/jobs/{job_id}/pause")
        api.client.post(f"/v1/jobs/{job_id}/resume")
        expected = [("attune.run_job", [job_id])]
        wait_until(lambda: messages(socket_file, "celery") == expected, "the message")
        api.parts.bell.close()  # what was noted has been published
        assert messages(socket_file, "celery") == expected, "one job waits, so one message does"
