"""One call of gRPC, from its metadata to its status: who asks is known before the message is read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from plinth.gateway.audit import CANCELLED, AuditLog, AuditRecord, abandoned
from plinth.gateway.caller import Caller
from plinth.gateway.errors import ErrorKind, GatewayError, internal, invalid, timed_out
from plinth.gateway.grpc_api import messages
from plinth.gateway.grpc_api.methods import METHODS, SERVICE, Method
from plinth.gateway.grpc_api.status import status_of
from plinth.gateway.grpc_api.wire_format import check_size
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.operations import Call, Operations
from plinth.gateway.request_id import HEADER, request_id_of
from plinth.gateway.tokens import TokenVerifier
from plinth.gateway.tracing import TRACEPARENT, Tracing

PROTOCOL = "grpc"
log = logging.getLogger("plinth.gateway.grpc")


@dataclass
class Attempt:
    """A call from its first byte: what is known of it, as far as it came."""

    method: Method
    request_id: str
    deadline: float
    began: float = field(default_factory=time.monotonic)
    call: Call | None = None

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline, 0 at least."""
        return max(0.0, self.deadline - time.monotonic())


class VectorServiceHandler:
    """The service.

    ``request_s`` is the longest that a call may take, in seconds, ``message_bytes`` how large a message may be, and
    ``calls`` how many are served at once.
    """

    def __init__(
        self,
        operations: Operations,
        verifier: TokenVerifier,
        audit: AuditLog,
        metrics: GatewayMetrics,
        *,
        request_s: float,
        message_bytes: int,
        calls: int,
        tracing: Tracing | None = None,
    ) -> None:
        self._operations = operations
        self._verifier = verifier
        self._audit = audit
        self._metrics = metrics
        self._request_s = request_s
        self._message_bytes = message_bytes
        self._calls = calls
        self._tracing = tracing
        self._running = 0

    def rpc_handlers(self) -> Any:
        """What a server of gRPC takes.

        Each method is served as one that takes a stream of messages, which is the same to its callers: so the message
        is read and decoded here, after the token, and what cannot be decoded is refused in our words.
        """
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._served(method)) for name, method in METHODS.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)

    def _served(self, method: Method) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def serve(_messages: Any, context: Any) -> bytes:
            return await self._serve(method, context)

        return serve

    async def _serve(self, method: Method, context: Any) -> bytes:
        metadata = _metadata(context)
        given_s = context.time_remaining()
        timeout_s = self._request_s if given_s is None else min(self._request_s, given_s)
        attempt = Attempt(method, request_id_of(metadata.get(HEADER)), time.monotonic() + timeout_s)
        trailing = ((HEADER, attempt.request_id),)
        context.set_trailing_metadata(trailing)
        self._running += 1
        outcome = CANCELLED
        try:
            response = await self._response(attempt, metadata, context)
            outcome = "OK"
            return response
        except GatewayError as error:
            outcome, refusal = error.kind.value, error
        except asyncio.CancelledError:
            outcome = abandoned(attempt.deadline)
            raise
        except Exception as error:
            outcome, refusal = ErrorKind.internal.value, internal()
            log.error("call %s of %s failed: %s", attempt.request_id, method.name, _fault(error))
        finally:
            self._running -= 1
            self._account(attempt, outcome)
        code, message, details = status_of(refusal)
        return await context.abort(code, message, (*trailing, *details))  # type: ignore[no-any-return]

    async def _response(self, attempt: Attempt, metadata: dict[str, str], context: Any) -> bytes:
        if self._running > self._calls:
            raise GatewayError(
                ErrorKind.resource_exhausted, "the gateway serves as many calls as it can", retry_after_s=1
            )
        try:
            async with asyncio.timeout(attempt.remaining_s):
                caller = await self._verifier.caller(metadata.get("authorization"))
                attempt.call = self._call(attempt, caller)
                request = await self._request(attempt.method, context)
        except TimeoutError:
            raise timed_out() from None
        attempt.call.collection = getattr(request, "collection", "") or getattr(request, "name", "") or None
        messages.known(request)
        with self._traced(attempt, metadata):
            response = await attempt.method.answer(self._operations, attempt.call, request)
        if response.ByteSize() > self._message_bytes:
            raise GatewayError(
                ErrorKind.resource_exhausted,
                f"the answer is larger than {self._message_bytes} bytes; ask for fewer points, or without vectors",
                too_large=True,
            )
        return response.SerializeToString()

    @contextmanager
    def _traced(self, attempt: Attempt, metadata: Mapping[str, str]) -> Iterator[None]:
        """A span for a call whose message is read, where calls are traced."""
        if self._tracing is None:
            yield
            return
        method = attempt.method.name
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": f"{SERVICE.full_name}/{method}",
            "plinth.request_id": attempt.request_id,
        }
        with self._tracing.server_span(f"{SERVICE.full_name}/{method}", metadata.get(TRACEPARENT), attributes) as span:
            status = "OK"
            try:
                yield
            except GatewayError as error:
                status = error.kind.value
                raise
            finally:
                span.set_attribute("rpc.response.status_code", status)

    def _call(self, attempt: Attempt, caller: Caller) -> Call:
        return Call(caller, attempt.request_id, attempt.deadline, PROTOCOL)

    async def _request(self, method: Method, context: Any) -> Message:
        content = await context.read()
        if not isinstance(content, bytes):
            # The server itself refuses one that is too large, or compressed, and ends the call.
            raise GatewayError(
                ErrorKind.resource_exhausted,
                f"a call has one message, of {self._message_bytes} bytes at most and without compression",
                too_large=True,
            )
        check_size(content, method.request.DESCRIPTOR)
        try:
            return method.request.FromString(content)
        except DecodeError:
            raise invalid("message", f"it is no {method.request.DESCRIPTOR.full_name}") from None

    def _account(self, attempt: Attempt, outcome: str) -> None:
        """Count the call, and audit one that the core has not seen."""
        self._metrics.grpc_request(attempt.method.name, outcome)
        call = attempt.call
        if call is not None and call.audited:
            return
        self._audit.write(
            AuditRecord(
                attempt.method.operation,
                attempt.request_id,
                call.caller if call else None,
                call.collection if call else None,
                0,
                outcome,
                (time.monotonic() - attempt.began) * 1000,
                PROTOCOL,
            )
        )


def _metadata(context: Any) -> dict[str, str]:
    """The metadata that is text; of two with one name the first."""
    metadata: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            metadata.setdefault(key, value)
    return metadata


def _fault(error: BaseException) -> str:
    """What failed and where, on one line. An error's own text may hold what a caller sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{where}"
