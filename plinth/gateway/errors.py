"""What the gateway answers when it does not do what was asked: one table for both protocols (ER-001)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class ErrorKind(StrEnum):
    """Why an operation was not done; the names are those of gRPC's status codes."""

    invalid_argument = "INVALID_ARGUMENT"
    unauthenticated = "UNAUTHENTICATED"
    permission_denied = "PERMISSION_DENIED"
    not_found = "NOT_FOUND"
    already_exists = "ALREADY_EXISTS"
    resource_exhausted = "RESOURCE_EXHAUSTED"
    deadline_exceeded = "DEADLINE_EXCEEDED"
    unavailable = "UNAVAILABLE"
    internal = "INTERNAL"


HTTP_STATUS: Mapping[ErrorKind, int] = MappingProxyType(
    {
        ErrorKind.invalid_argument: 400,
        ErrorKind.unauthenticated: 401,
        ErrorKind.permission_denied: 403,
        ErrorKind.not_found: 404,
        ErrorKind.already_exists: 409,
        ErrorKind.resource_exhausted: 429,
        ErrorKind.deadline_exceeded: 504,
        ErrorKind.unavailable: 503,
        ErrorKind.internal: 500,
    }
)


@dataclass(frozen=True)
class FieldViolation:
    """One thing that is wrong with a request: the path of the field (`points.3.vector`), and why."""

    field: str
    reason: str


class GatewayError(Exception):
    """An operation was not done.

    ``message`` is one sentence for the caller and holds nothing of the stack's insides. ``violations`` name the fields
    that are wrong. ``retry_after_s`` is when another try may succeed, where that is known. ``too_large`` is set where
    the request itself exceeds a size, so that no later try succeeds.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        too_large: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.too_large = too_large

    @property
    def http_status(self) -> int:
        """The status of HTTP."""
        return 413 if self.too_large else HTTP_STATUS[self.kind]


def invalid(field: str, reason: str) -> GatewayError:
    """A request with one wrong field."""
    return GatewayError(ErrorKind.invalid_argument, f"{field}: {reason}", violations=(FieldViolation(field, reason),))


def invalid_filter(field: str, reason: str) -> GatewayError:
    """EC-005."""
    violations = (FieldViolation(field, reason),)
    return GatewayError(ErrorKind.invalid_argument, f"invalid filter syntax: {field}: {reason}", violations=violations)


def collection_not_found() -> GatewayError:
    """EC-002. It is the answer for a collection of another organisation too."""
    return GatewayError(ErrorKind.not_found, "collection not found")


def collection_exists() -> GatewayError:
    """EC-003."""
    return GatewayError(ErrorKind.already_exists, "collection already exists")


def dimension_mismatch(field: str, given: int, dimension: int) -> GatewayError:
    """EC-001."""
    reason = f"vector dimension mismatch: it has {given} values and the collection takes {dimension}"
    return invalid(field, reason)


def unavailable() -> GatewayError:
    """EC-007."""
    return GatewayError(ErrorKind.unavailable, "qdrant unavailable", retry_after_s=1)


def timed_out() -> GatewayError:
    """The deadline of the caller, or the gateway's own, has passed."""
    return GatewayError(ErrorKind.deadline_exceeded, "operation timeout")


def internal() -> GatewayError:
    """A fault of the gateway; what it is stands in its log."""
    return GatewayError(ErrorKind.internal, "internal error")
