"""Counters for Prometheus, one registry an app, so that two apps in one process do not count each other's requests."""

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.store.counts import Waiting
from service.store.records.webhooks import DeliveryState
from service.store.states import JobState
from service.store.unavailable import Reason

# From a cached GET to a long poll.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


StateT = TypeVar("StateT", bound=str)


class ByState(Collector, Generic[StateT]):
    """A gauge with a label `state` that asks the database when it is scraped: true however many processes serve."""

    def __init__(self, name: str, documentation: str, count: Callable[[], Mapping[StateT, int]]) -> None:
        self._name, self._documentation, self._count = name, documentation, count

    def describe(self) -> Iterable[Metric]:
        return [self._gauge()]

    def collect(self) -> Iterable[Metric]:
        gauge = self._gauge()
        for state, number in self._count().items():
            gauge.add_metric([state], number)
        return [gauge]

    def _gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._documentation, labels=["state"])


class QueueByClass(Collector):
    """How many jobs wait in each class, and how long the first of them has: asked at every scrape as well."""

    def __init__(self, wait: Callable[[], Mapping[str, Waiting]]) -> None:
        self._wait = wait

    def describe(self) -> Iterable[Metric]:
        return self._gauges()

    def collect(self) -> Iterable[Metric]:
        jobs, age = self._gauges()
        for name, found in self._wait().items():
            jobs.add_metric([name], found.num)
            age.add_metric([name], found.seconds)
        return [jobs, age]

    def _gauges(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("attune_queue_jobs", "Queued jobs by class.", labels=["class"]),
            GaugeMetricFamily(
                "attune_queue_age_seconds", "How long the first queued job of a class has waited.", labels=["class"]
            ),
        )


class Telemetry:
    """Requests and jobs as Prometheus sees them."""

    def __init__(
        self,
        count_jobs: Callable[[], Mapping[JobState, int]],
        wait: Callable[[], Mapping[str, Waiting]],
        count_deliveries: Callable[[], Mapping[DeliveryState, int]],
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ByState("attune_jobs", "Jobs by state, in all projects.", count_jobs))
        deliveries = "Deliveries to webhooks by state, in all projects, as far as they are kept."
        self._registry.register(ByState("attune_webhook_deliveries", deliveries, count_deliveries))
        self._registry.register(QueueByClass(wait))
        self._objects = Counter(
            "attune_object_store_errors", "Failures of the object store.", ["reason"], registry=self._registry
        )
        self._requests = Counter(
            "attune_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "attune_request_seconds",
            "Seconds to answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self._registry,
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def count_object_error(self, reason: Reason) -> None:
        self._objects.labels(reason).inc()

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)
