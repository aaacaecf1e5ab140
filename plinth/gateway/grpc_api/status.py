"""Errors as statuses of gRPC, with the details that google.rpc has for them."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from plinth.gateway.errors import ErrorKind, GatewayError

# Clients take 8 KiB of metadata; what names of fields add to it is the caller's choice.
VIOLATIONS_MAX, MESSAGE_MAX = 8, 256


def code_of(kind: ErrorKind) -> grpc.StatusCode:
    """The code: the kinds have the names of gRPC's."""
    return grpc.StatusCode[kind.value]


def status_of(error: GatewayError) -> tuple[grpc.StatusCode, str, tuple[Any, ...]]:
    """The code, the message and the trailing metadata."""
    code, message = code_of(error.kind), error.message[:MESSAGE_MAX]
    details = [_packed(detail) for detail in _details(error)]
    if not details:
        return code, message, ()
    status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=details))
    return code, message, status.trailing_metadata


def _details(error: GatewayError) -> list[Any]:
    details: list[Any] = []
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.reason)
            for violation in error.violations[:VIOLATIONS_MAX]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(detail: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
