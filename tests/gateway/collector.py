"""A collector of traces: OTLP over HTTP, its messages decoded."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from plinth.gateway.trace_exporter import PATH
from tests.answers import Answers, close, serve

WAIT_S = 30.0


@dataclass(frozen=True)
class ReceivedSpan:
    """A span, and the service that made it."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool


class Collector:
    """Takes spans from who shows its token."""

    TOKEN = "token-of-the-collector"

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.bodies: list[bytes] = []
        self.refused = 0
        self._changed = threading.Condition()

    def __enter__(self) -> Collector:
        collector = self

        class Receiver(Answers):
            def do_POST(self) -> None:
                body = self.content()
                admitted = self.headers["authorization"] == f"Bearer {Collector.TOKEN}" and self.path == PATH
                collector._receive(gzip.decompress(body) if admitted else None)
                self.reply(200 if admitted else 401)

        self._server = serve(Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        close(self._server)

    def trace(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """The spans of a trace, once it has these."""
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while True:
                spans = [span for span in self.spans if span.trace_id == trace_id]
                if set(names) <= {span.name for span in spans}:
                    return spans
                remaining = deadline - time.monotonic()
                assert remaining > 0, [span.name for span in spans]
                self._changed.wait(remaining)

    def _receive(self, body: bytes | None) -> None:
        with self._changed:
            if body is None:
                self.refused += 1
                return
            self.bodies.append(body)
            self.spans += _decoded(body)
            self._changed.notify_all()


def _decoded(body: bytes) -> list[ReceivedSpan]:
    return [
        ReceivedSpan(
            service=_attributes(resource.resource.attributes)["service.name"],
            name=span.name,
            kind=span.kind,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes=_attributes(span.attributes),
            failed=span.status.code == 2,
        )
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _attributes(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
