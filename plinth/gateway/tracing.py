"""Traces by OpenTelemetry, from a request over its job to Qdrant; off unless a collector is named.

Spans are made by hand where a request comes in, where a worker has a job and where Qdrant is asked: instrumentation
packages would make several for each of these, and put addresses and texts into them. An attribute holds what the audit
log may hold, and nothing else that a caller sent. A collector that is away costs spans, which are counted, and no
request anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from plinth.gateway.config import TracingConfig
from plinth.gateway.errors import ErrorKind, GatewayError

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_FAULTS = frozenset({ErrorKind.internal, ErrorKind.unavailable, ErrorKind.deadline_exceeded})
_FAILED = Status(StatusCode.ERROR)
Attributes = Mapping[str, str | int]


class Tracing:
    """Makes spans of a role of the gateway, and sends them."""

    def __init__(self, config: TracingConfig, role: str) -> None:
        # Some 50 ms of CPU and 7 MB, which whoever traces nothing saves.
        from plinth.gateway.trace_exporter import exporter_for, provider_for

        self._exporter = exporter_for(config)
        self._provider = provider_for(config, role, self._exporter)
        self._tracer = self._provider.get_tracer("plinth.gateway")

    @property
    def failures(self) -> int:
        """Spans that could not be sent."""
        return self._exporter.failures

    @contextmanager
    def server_span(self, name: str, traceparent: str | None, attributes: Attributes) -> Iterator[Span]:
        """A request, within the trace that its caller names."""
        with self._span(name, SpanKind.SERVER, attributes, traceparent) as span:
            yield span

    @contextmanager
    def job_span(self, kind: str, traceparent: str | None, attributes: Attributes) -> Iterator[Span]:
        """What a worker does with a job, within the trace of the request that asked for it."""
        with self._span(f"job {kind}", SpanKind.CONSUMER, attributes, traceparent) as span:
            yield span

    @contextmanager
    def qdrant_span(self, operation: str, collection: str | None) -> Iterator[Mapping[str, str]]:
        """A request to Qdrant; yields the headers that tell it of the trace."""
        attributes: dict[str, str | int] = {"db.system.name": "qdrant", "db.operation.name": operation}
        if collection is not None:
            attributes["db.collection.name"] = collection
        with self._span(f"qdrant {operation}", SpanKind.CLIENT, attributes) as span:
            yield {TRACEPARENT: _text(span.get_span_context())}

    def close(self) -> None:
        """Send what waits, within the time of a batch."""
        self._provider.shutdown()

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, traceparent: str | None = None
    ) -> Iterator[Span]:
        parent = _parsed(traceparent)
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent else None
        span = self._tracer.start_span(name, context, kind, attributes)
        try:
            # An exception's own words may repeat what a caller sent.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except GatewayError as error:
            # What a caller does wrong is no fault of this span.
            if error.kind in _FAULTS:
                fail(span, error.kind.value)
            raise
        except BaseException as error:
            fail(span, type(error).__name__)
            raise
        finally:
            span.end()


def tracing_of(config: TracingConfig | None, role: str) -> Tracing | None:
    """What traces the role of a process; None where nothing is traced."""
    return Tracing(config, role) if config else None


def fail(span: Span, error_type: str) -> None:
    """Mark a span as one that failed."""
    span.set_status(_FAILED)
    span.set_attribute("error.type", error_type)


def current_traceparent() -> str | None:
    """The trace that goes on here, as W3C writes it; None where there is none."""
    context = trace.get_current_span().get_span_context()
    return _text(context) if context.is_valid else None


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _parsed(traceparent: str | None) -> SpanContext | None:
    """The trace of a caller; None for what names none. A tracestate, which may say anything, goes no further."""
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent and len(traceparent) <= 256 else None
    if parts is None:
        return None
    flags = TraceFlags(int(parts[3], 16) & TraceFlags.SAMPLED)
    context = SpanContext(int(parts[1], 16), int(parts[2], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None
