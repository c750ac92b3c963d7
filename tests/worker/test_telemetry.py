"""What Prometheus hears of a worker, of the queue, and of the object store; and that the alerts in the docs speak of that alone."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from alignment_core.events import StepCompleted, Throughput, ThroughputMeasured
from service.api.telemetry import Telemetry
from service.resource_classes import parse_classes
from service.store import leases
from service.store.counted import CountedObjects
from service.store.counts import deliveries_by_state, jobs_by_state, waiting_by_class
from service.store.database import Store, open_store
from service.store.objects import DirectoryStore
from service.store.unavailable import ObjectsUnavailable
from tests.servers.process import free_port
from tests.worker.conftest import World
from worker.run import run_job
from worker.sweep import sweep
from worker.telemetry import WorkerTelemetry

ALERTS = Path(__file__).parents[2] / "docs" / "alerts.yaml"


def samples(telemetry: WorkerTelemetry) -> dict[str, float]:
    lines = generate_latest(telemetry.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_a_job_is_one_attempt_with_its_phases_and_no_series_of_its_own_once_it_has_ended(world: World) -> None:
    job, parts = world.queue(steps=4), world.worker()
    run_job(parts, job.id)
    found = samples(parts.telemetry)
    assert found['attune_attempts_total{kind="job",state="succeeded"}'] == 1
    phases = {name for name in found if name.startswith("attune_phase_seconds_count")}
    told = {re.search('phase="(.*)"', name)[1] for name in phases}  # pyright: ignore[reportOptionalSubscript]
    assert {"queued", "starting", "loading", "training", "saving", "uploading"} <= told
    assert not [name for name in found if job.id in name]


def test_a_running_job_says_how_fast_it_is_and_what_it_takes() -> None:
    telemetry, job_id = WorkerTelemetry(), "job_01kaf0h2v7x3m5q8r1s4t6w9yz"
    telemetry._examples_per_step[job_id] = 16
    telemetry.heard(job_id, StepCompleted(step=1, total_steps=2, metrics={}, step_seconds=4.0))
    pace = Throughput(
        num_steps=1,
        examples_per_second=4.0,
        tflops_per_second=100.0,
        mfu=0.25,
        peak_device_gib=2.0,
        peak_host_gib=1.0,
        waiting_share=0.1,
        saving_share=0.0,
    )
    telemetry.heard(job_id, ThroughputMeasured(step=1, throughput=pace))
    found = samples(telemetry)
    own = {name.partition("{")[0]: value for name, value in found.items() if job_id in name}
    assert own == {
        "attune_job_examples_per_second": 4.0,
        "attune_job_gpu_use_ratio": 0.25,
        "attune_job_gpu_memory_peak_bytes": 2.0 * 2**30,
        "attune_job_data_wait_ratio": 0.1,
    }


def test_a_lost_worker_is_counted_by_the_one_that_finds_it(world: World) -> None:
    job, parts = world.queue(), world.worker()
    leases.claim(world.store, job.id, "lost", -1.0)
    sweep(parts)
    assert samples(parts.telemetry)["attune_attempts_lost_total"] == 1


def test_failures_of_the_store_are_counted_by_their_reason(tmp_path: Path) -> None:
    telemetry = WorkerTelemetry()
    objects = CountedObjects(DirectoryStore(tmp_path / "objects"), telemetry.count_object_error)
    objects.put_bytes("projects/a", b"kept")
    assert b"".join(objects.open_range("projects/a")) == b"kept"
    (tmp_path / "objects").rename(tmp_path / "unmounted")
    with pytest.raises(ObjectsUnavailable):
        objects.put_bytes("projects/b", b"lost")
    assert samples(telemetry)['attune_object_store_errors_total{reason="missing"}'] == 1


@pytest.fixture
def classes_store(world: World) -> Iterator[Store]:
    store = open_store(world.settings.resolved_database_url, parse_classes("small:1,large:8"))
    yield store
    store.close()


def test_the_queue_has_an_age_by_class_and_classes_without_jobs_have_none(world: World, classes_store: Store) -> None:
    world.queue()
    world.queue()
    found = waiting_by_class(classes_store)
    assert {name: one.num for name, one in found.items()} == {"small": 2, "large": 0}
    assert found["small"].seconds >= 0.0 == found["large"].seconds
    assert list(waiting_by_class(world.store)) == ["all"]


def test_a_worker_answers_on_its_port() -> None:
    telemetry, port = WorkerTelemetry(), free_port()
    telemetry.found_lost(2)
    telemetry.serve("127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"attune_attempts_lost_total 2.0" in answer.read()


def test_alerts_in_the_docs_speak_of_metrics_that_are_exposed(world: World) -> None:
    api = Telemetry(
        lambda: jobs_by_state(world.store),
        lambda: waiting_by_class(world.store),
        lambda: deliveries_by_state(world.store),
    )
    exposed = set(
        re.findall(r"# TYPE (\w+)", (api.exposition() + generate_latest(WorkerTelemetry().registry)).decode())
    )
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 10
    for rule in rules:
        assert set(rule) >= {"alert", "expr", "labels", "annotations"}
        named = set(re.findall(r"\battune_\w+", re.sub(r"\{[^}]*\}", "", rule["expr"])))
        assert named or "up{" in rule["expr"]
        assert {name.removesuffix("_bucket") for name in named} <= exposed, rule["alert"]
