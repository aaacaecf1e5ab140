"""Spans on their way to a collector: OTLP over HTTP. It is loaded where something is traced, and nowhere else.

The exporter is that over HTTP, not gRPC: its requests go by the user's proxy where others of Plinth's do, and it needs
no options of a channel of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from plinth.gateway.config import TracingConfig
from plinth.system.http_client import proxy_for
from plinth.system.secret_file import read_secret

PATH = "/v1/traces"
# Spans that wait for the collector, and how many are sent at once.
QUEUE_MAX, BATCH_MAX = 2048, 512
# The longest that one waits for others.
DELAY_MS = 1000
# Of one batch with all its tries.
EXPORT_S = 5.0
log = logging.getLogger("plinth.gateway.tracing")


class CountingExporter(SpanExporter):
    """An exporter whose failures are counted, in spans, and logged once until it sends again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False
        self.failures = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, each once."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._is_failing = False
            return result
        self.failures += len(spans)
        if not self._is_failing:
            log.warning("the collector of traces takes no spans; they are dropped until it does")
        self._is_failing = True
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()


def exporter_for(config: TracingConfig) -> CountingExporter:
    """Who sends spans to the collector."""
    # Its own words repeat what the collector answers, for each batch.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return CountingExporter(
        OTLPSpanExporter(
            f"{config.endpoint.rstrip('/')}{PATH}",
            certificate_file=os.environ.get("SSL_CERT_FILE"),
            headers=_headers(read_secret(config.headers_file)) if config.headers_file else None,
            timeout=EXPORT_S,
            compression=Compression.Gzip,
            session=session_for(config.endpoint),
        )
    )


def provider_for(config: TracingConfig, role: str, exporter: SpanExporter) -> TracerProvider:
    """Who makes spans of a role, of the share of requests that is asked for."""
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
        resource=Resource({"service.name": f"plinth-gateway-{role}", "service.namespace": "plinth"}),
        span_limits=SpanLimits(max_attribute_length=256),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=QUEUE_MAX, max_export_batch_size=BATCH_MAX, schedule_delay_millis=DELAY_MS
        )
    )
    return provider


def _headers(text: str) -> Mapping[str, str]:
    """`name=value`, several with commas between them."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}


def session_for(endpoint: str) -> requests.Session:
    """Connections by the user's proxy where others of Plinth's go by it; the surroundings decide nothing else."""
    session = requests.Session()
    session.trust_env = False
    proxy = proxy_for(endpoint)
    session.proxies = {"http": proxy, "https": proxy} if proxy else {}
    return session
