"""The gateway's metrics page."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily
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

    def operation(self, name: str, protocol: str, outcome: str, seconds: float) -> None:
        """Count an operation of the core."""
        self._operations.labels(name, protocol, outcome).observe(seconds)

    def http_request(self, method: str, route: str, status: int) -> None:
        """Count a request."""
        self._http.labels(method, route, str(status)).inc()

    def grpc_request(self, method: str, code: str) -> None:
        """Count a call."""
        self._grpc.labels(method, code).inc()

    def counted(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Add a counter that another part keeps."""
        self.registry.register(_Kept(name, description, read))


class _Kept(Collector):
    def __init__(self, name: str, description: str, read: Callable[[], float]) -> None:
        self._name, self._description, self._read = name, description, read

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._description, value=self._read())
