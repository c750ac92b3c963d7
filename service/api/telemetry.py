"""Counters for Prometheus, one registry an app, so that two apps in one process do not count each other's requests."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.store.states import JobState

# From a cached GET to a long poll.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class JobsByState(Collector):
    """A gauge that asks the database when it is scraped: true however many processes serve."""

    def __init__(self, count: Callable[[], Mapping[JobState, int]]) -> None:
        self._count = count

    def describe(self) -> Iterable[Metric]:
        return [self._gauge()]

    def collect(self) -> Iterable[Metric]:
        gauge = self._gauge()
        for state, number in self._count().items():
            gauge.add_metric([state], number)
        return [gauge]

    def _gauge(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("attune_jobs", "Jobs by state, in all projects.", labels=["state"])


class Telemetry:
    """Requests and jobs as Prometheus sees them."""

    def __init__(self, count_jobs: Callable[[], Mapping[JobState, int]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(JobsByState(count_jobs))
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

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)
