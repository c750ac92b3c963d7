"""What a collector is sent of work beside the jobs: below the request that asked for it, and of webhooks below what they tell of."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from service.store import deliveries, exports, jobs, outputs, pushes
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.checkpoints import CheckpointRecord
from service.store.traces import traced
from service.tracing import Tracing
from tests.servers.hub_writes import writable_hub
from tests.servers.otlp import Collector, SentSpan
from tests.servers.receiver import Reply, receiving
from tests.worker.conftest import World
from tests.worker.test_dataset import upload
from tests.worker.test_webhooks import webhook, worker_of
from worker.attempt_traces import AttemptTraces
from worker.dataset import prepare_dataset
from worker.parts import WorkerParts
from worker.push import make_push
from worker.run import run_job
from worker.traces import Errand
from worker.turns import make_exports
from worker.webhooks import send_due

TRACE, REQUEST = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{REQUEST}-01"
REPO, TOKEN = "our-team/walrus", "hf_of_the_operator"


def traced_parts(parts: WorkerParts) -> WorkerParts:
    return dataclasses.replace(parts, traces=AttemptTraces(Tracing("attune-worker", "first")))


def trained(world: World) -> CheckpointRecord:
    run_job(world.worker(), world.queue(steps=4).id)
    return outputs.list_checkpoints(world.store, PROJECT, jobs.list_jobs(world.store, PROJECT, limit=1).data[0].id)[-1]


def sent(parts: WorkerParts, collector: Collector) -> dict[str, SentSpan]:
    parts.traces.close()
    spans = collector.spans()
    assert {one.trace_id for one in spans} == {TRACE}
    return {one.name: one for one in spans}


def test_the_check_of_an_upload_is_in_the_trace_of_the_upload_and_so_is_what_webhooks_hear_of_it(
    world: World, collector: Collector
) -> None:
    with receiving([Reply(status=503), Reply()]) as receiver:
        hook = webhook(world, f"{receiver.url}?token=walrus")
        with traced(TRACEPARENT):
            dataset_id = upload(world, b"PAR1 and rows")
        parts = traced_parts(worker_of(world))
        prepare_dataset(parts, dataset_id)
        assert send_due(parts) == 1
        deliveries.redeliver(world.store, PROJECT, hook.id, receiver.ids()[0])
        send_due(parts)
    parts.traces.close()
    check, *rest = (one for one in collector.spans() if one.name == "check")
    assert not rest
    assert (check.trace_id, check.parent_id, check.service) == (TRACE, REQUEST, "attune-worker")
    assert check.attributes["attune.dataset_id"] == dataset_id
    assert (check.attributes["attune.kind"], check.attributes["attune.state"], check.error) == ("data", "ready", None)
    first, again = sorted((one for one in collector.spans() if one.name == "deliver"), key=lambda one: one.start)
    assert (first.trace_id, first.parent_id) == (TRACE, check.span_id), "what the check found is what is told"
    assert (first.attributes["attune.state"], first.error) == ("pending", "503")
    assert (again.attributes["attune.state"], again.error) == ("delivered", None)
    assert again.trace_id != TRACE, "of whoever asked for it again, which was not traced"
    assert first.attributes["attune.delivery_id"] == again.attributes["attune.delivery_id"] == receiver.ids()[0]
    assert [one.attributes["attune.attempt"] for one in (first, again)] == [1, 2]
    assert b"walrus" not in collector.bodies()


def test_what_a_webhook_is_told_of_a_job_is_in_the_jobs_trace(world: World, collector: Collector) -> None:
    with receiving() as receiver:
        webhook(world, receiver.url)
        with traced(TRACEPARENT):
            job = world.queue(steps=4)
        parts = traced_parts(worker_of(world))
        run_job(parts, job.id)
        assert send_due(parts) == 1
    named = sent(parts, collector)
    assert named["deliver"].parent_id == named["attempt"].parent_id == REQUEST
    assert named["deliver"].start >= named["attempt"].start


def test_an_export_waits_and_is_made_in_the_trace_of_the_request(
    world: World, collector: Collector, behave: Callable[[str], None]
) -> None:
    checkpoint = trained(world)
    behave('{"export_fails": "base_model_differs"}')
    with traced(TRACEPARENT):
        exports.ask(world.store, checkpoint, "diffusers")
    parts = traced_parts(world.worker())
    make_exports(parts)
    named = sent(parts, collector)
    export = named["export"]
    assert (named["queued"].parent_id, export.parent_id) == (REQUEST, REQUEST)
    assert named["queued"].end <= export.start
    assert export.attributes["attune.checkpoint_id"] == checkpoint.id
    assert (export.attributes["attune.format"], export.attributes["attune.state"]) == ("diffusers", "failed")
    assert export.error == "base_model_differs"


def test_the_export_that_a_push_makes_is_a_part_of_it(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writable_hub(TOKEN) as hub:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}.items():
            monkeypatch.setenv(name, value)
        settings = {"hub_namespaces": ("our-team",), "hub_token": SecretStr(TOKEN)}
        world.settings = world.settings.model_copy(update=settings)
        checkpoint = trained(world)
        with traced(TRACEPARENT):
            push = pushes.ask(world.store, checkpoint, REPO, "main", "diffusers", is_private=True)
        assert push is not None
        parts = traced_parts(world.worker())
        make_push(parts, push.id)
    named = sent(parts, collector)
    assert (named["push"].parent_id, named["push"].attributes["attune.state"]) == (REQUEST, "pushed")
    assert named["export"].parent_id == named["push"].span_id
    assert named["push"].start <= named["export"].start <= named["export"].end <= named["push"].end
    assert b"walrus" not in collector.bodies()


def test_work_that_another_worker_has_by_now_is_told_as_lost(world: World, collector: Collector) -> None:
    parts = traced_parts(world.worker())
    with parts.traces.errand(Errand("export", "export", "exp_1", 2, PROJECT, datetime.now(UTC), TRACEPARENT)):
        pass  # nobody tells how it ended
    span = sent(parts, collector)["export"]
    assert (span.attributes["attune.state"], span.error) == ("lost", "worker_lost")
