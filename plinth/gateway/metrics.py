"""The gateway's metrics page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds; the targets of S4-11 (0.01, 0.05, 0.1) are bounds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class GatewayMetrics:
    """What the gateway counts. No label holds anything that a caller chose."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._operations = Histogram(
            "plinth_gateway_operation_duration_seconds",
            "Operations of the core, by their outcome",
            ("operation", "protocol", "outcome"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._http = Counter(
            "plinth_gateway_http_requests",
            "HTTP requests by the template of their route",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._grpc = Counter(
            "plinth_gateway_grpc_requests",
            "Calls of gRPC by their method",
            ("method", "code"),
            registry=self.registry,
        )
        self._jobs = Counter(
            "plinth_gateway_job_attempts",
            "What became of jobs that a worker had; one that is rejected asks for what cannot be done",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self._job_items = Counter(
            "plinth_gateway_job_items", "Texts of jobs that were done", ("kind",), registry=self.registry
        )
        self._backlog = _Backlog()
        self.registry.register(self._backlog)

    def operation(self, name: str, protocol: str, outcome: str, seconds: float) -> None:
        """Count an operation of the core."""
        self._operations.labels(name, protocol, outcome).observe(seconds)

    def http_request(self, method: str, route: str, status: int) -> None:
        """Count a request."""
        self._http.labels(method, route, str(status)).inc()

    def grpc_request(self, method: str, code: str) -> None:
        """Count a call."""
        self._grpc.labels(method, code).inc()

    def expect_jobs(self, kinds: Iterable[str]) -> None:
        """Show what can become of jobs before it has: an increase from nothing is none to Prometheus."""
        for kind in kinds:
            self._job_items.labels(kind)
            for outcome in ("completed", "failed", "rejected", "retried"):
                self._jobs.labels(kind, outcome)

    def job(self, kind: str, outcome: str) -> None:
        """Count what became of a job that a worker had."""
        self._jobs.labels(kind, outcome).inc()

    def job_items(self, kind: str, count: int) -> None:
        """Count texts of a job that were done."""
        self._job_items.labels(kind).inc(count)

    def backlog(self, jobs: Mapping[str, int] | None, longest_wait_s: float = 0) -> None:
        """Show the jobs by their status, and how long one has waited for a worker; nothing where that is not known."""
        self._backlog.show(jobs, longest_wait_s)

    def counted(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Add a counter that another part keeps."""
        self.registry.register(_Kept(name, description, read))


class _Backlog(Collector):
    """Jobs as the database has them; of several gateways each shows the same."""

    def __init__(self) -> None:
        self._shown: tuple[Mapping[str, int], float] | None = None

    def show(self, jobs: Mapping[str, int] | None, longest_wait_s: float) -> None:
        self._shown = None if jobs is None else (jobs, longest_wait_s)

    def collect(self) -> Iterable[Metric]:
        if self._shown is None:
            return
        by_status, longest_wait_s = self._shown
        jobs = GaugeMetricFamily("plinth_gateway_jobs", "Jobs that have not ended well", labels=("status",))
        for status, count in by_status.items():
            jobs.add_metric((status,), count)
        yield jobs
        yield GaugeMetricFamily(
            "plinth_gateway_job_longest_wait_seconds",
            "How long a job that is due has waited for a worker",
            value=longest_wait_s,
        )


class _Kept(Collector):
    def __init__(self, name: str, description: str, read: Callable[[], float]) -> None:
        self._name, self._description, self._read = name, description, read

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._description, value=self._read())
