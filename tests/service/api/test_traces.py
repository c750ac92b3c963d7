"""The span of a request, as a collector is sent it, and how its trace goes on in what the request queues."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.main import create_app
from service.settings import Settings
from service.store import leases, sweeps, waiting
from tests.servers.otlp import Collector, collecting
from tests.servers.process import wait_until
from tests.service.api.conftest import NewApi
from tests.service.api.world import spec_for

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "a walrus that nobody else may know of"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found


def test_a_request_is_a_span_and_its_job_goes_on_in_its_trace(
    new_api: NewApi, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # it would send what was refused
    api = new_api(traces=True)
    body = {"spec": spec_for(api.ready_dataset()), "name": PROMPT, "metadata": {"team": PROMPT}}
    body["spec"]["evaluation"]["prompts"] = [PROMPT]
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "my-call", "Authorization": "Bearer hush-hush"}
    made = api.client.post("/v1/jobs?walrus=1", json=body, headers=headers)
    assert made.status_code == 422, "the parameter is unknown"
    made = api.client.post("/v1/jobs", json=body, headers=headers)
    assert made.status_code == 201, made.text
    job_id = made.json()["id"]
    wait_until(lambda: len(collector.spans()) == 2, "both spans")
    refused, span = collector.spans()
    assert (refused.attributes["http.response.status_code"], refused.error) == (422, None)
    assert (span.name, span.service) == ("POST /v1/jobs", "attune-api")
    assert (span.trace_id, span.parent_id) == (TRACE, CALLER), "the trace of the caller"
    assert span.attributes["http.route"] == "/v1/jobs"
    assert span.attributes["attune.request_id"] == "my-call"
    assert span.attributes["attune.location"] == f"/v1/jobs/{job_id}"
    claim = leases.claim(api.parts.store, job_id, "worker", 60)
    assert claim is not None
    assert claim.traceparent == f"00-{TRACE}-{span.span_id}-01"
    sent = collector.bodies()
    assert not [word for word in (b"walrus", b"hush") if word in sent]


def test_a_request_without_a_trace_begins_one_and_ids_in_its_path_are_attributes(
    new_api: NewApi, collector: Collector
) -> None:
    api = new_api(traces=True)
    job_id = "job_01kaf0h2v7x3m5q8r1s4t6w9yz"
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/walrus", "/walrus", "/healthz", "/readyz", "/metrics"):
        api.client.get(path)
    wait_until(lambda: len(collector.spans()) == 3, "the spans")
    by_id, by_word, lost = collector.spans()
    assert (by_id.parent_id, by_id.attributes["attune.job_id"]) == ("", job_id)
    assert (by_id.name, by_word.name, lost.name) == ("GET /v1/jobs/{job_id}", "GET /v1/jobs/{job_id}", "GET")
    assert b"walrus" not in collector.bodies()


def test_the_trials_of_a_sweep_are_in_its_trace_whoever_queues_them(new_api: NewApi, collector: Collector) -> None:
    api = new_api(traces=True)
    search = {"type": "list", "points": [{"seed": 1}, {"seed": 2}]}
    body = {"spec": spec_for(api.ready_dataset()), "search": search, "at_once": 1}
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    made = api.client.post("/v1/sweeps", json=body, headers=headers)
    assert made.status_code == 201, made.text
    store, found = api.parts.store, []
    for _ in range(2):
        (job_id,) = waiting.next_jobs(store, 5)
        claim = leases.claim(store, job_id, "worker", 60)
        assert claim is not None
        found.append(claim.traceparent)
        leases.finish(store, job_id, claim.attempt, "succeeded")
        sweeps.feed_all(store, lambda _: None)
    assert [one[3:35] for one in found] == [TRACE, TRACE]
    assert found[0] == found[1]


def test_a_log_line_names_the_trace(new_api: NewApi, collector: Collector, capfd: pytest.CaptureFixture[str]) -> None:
    new_api(traces=True).client.get("/v1/jobs", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (line,) = [one for one in lines if one.get("event") == "request"]
    assert line["trace_id"] == TRACE


def test_a_trace_that_is_not_sampled_is_none_further_on(
    new_api: NewApi, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    api = new_api(traces=True)
    job_id = api.client.post("/v1/jobs", json={"spec": spec_for(api.ready_dataset())}).json()["id"]
    claim = leases.claim(api.parts.store, job_id, "worker", 60)
    assert claim is not None
    assert claim.traceparent is not None
    flags = int(claim.traceparent.rpartition("-")[2], 16)
    assert not flags & 1, "not sampled, and the worker heeds it"


def test_a_protocol_that_is_not_there_is_refused_before_anything_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        create_app(Settings(traces=True))


def test_a_disabled_sdk_traces_nothing(new_api: NewApi, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    api = new_api(traces=True)
    job_id = api.client.post("/v1/jobs", json={"spec": spec_for(api.ready_dataset())}).json()["id"]
    claim = leases.claim(api.parts.store, job_id, "worker", 60)
    assert claim is not None
    assert claim.traceparent is None


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from service.main import create_app; from service.settings import Settings\n"
        "try: create_app(Settings(traces=True))\n"
        "except ValueError as error: sys.exit('extra `tracing`' not in str(error))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
