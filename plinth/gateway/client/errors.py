"""What a client raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from plinth.gateway.errors import HTTP_STATUS, ErrorKind, FieldViolation, GatewayError
from plinth.gateway.jobs.model import Job
from plinth.gateway.request_id import HEADER as REQUEST_ID_HEADER

RETRY_AFTER_MAX_S = 3600.0
# Answers of what stands between: a proxy, an ingress.
_KINDS = {status: kind for kind, status in HTTP_STATUS.items()} | {
    408: ErrorKind.deadline_exceeded,
    413: ErrorKind.resource_exhausted,
    502: ErrorKind.unavailable,
}
# Of these it is not known whether the operation was done.
_UNDECIDED = frozenset({ErrorKind.unavailable, ErrorKind.deadline_exceeded, ErrorKind.internal})
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.LocalProtocolError, httpx.ProxyError)


class ApiError(GatewayError):
    """An operation was not done, or nobody knows whether it was (``may_be_done``).

    ``request_id`` is the one of the gateway's audit log, where it has answered; the rest is as in
    :class:`~plinth.gateway.errors.GatewayError`.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        too_large: bool = False,
        request_id: str | None = None,
        may_be_done: bool = False,
    ) -> None:
        super().__init__(kind, message, violations=violations, retry_after_s=retry_after_s, too_large=too_large)
        self.request_id = request_id
        self.may_be_done = may_be_done

    def __str__(self) -> str:
        """The kind, and the sentence."""
        return f"{self.kind.value}: {self.message}"


class JobFailedError(Exception):
    """A job ended without being completed: it failed, or it was cancelled."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.status.value}: {job.error or 'somebody cancelled it'}")
        self.job = job


def refusal(answer: httpx.Response) -> ApiError:
    """The error of an answer that is no success."""
    kind = _KINDS.get(answer.status_code, ErrorKind.internal)
    message = f"the server answered {answer.status_code}, and not as a gateway does"
    violations: tuple[FieldViolation, ...] = ()
    try:
        problem: Mapping[str, Any] = orjson.loads(answer.content)
        kind, message = ErrorKind(problem["code"]), str(problem["detail"])
        violations = tuple(FieldViolation(each["field"], each["reason"]) for each in problem.get("violations", ()))
    except (ValueError, KeyError, TypeError):
        pass  # what stands between has answered: its status says all that is known
    return ApiError(
        kind,
        message,
        violations=violations,
        retry_after_s=_seconds(answer.headers.get("retry-after")),
        too_large=answer.status_code == 413,
        request_id=answer.headers.get(REQUEST_ID_HEADER),
        may_be_done=kind in _UNDECIDED,
    )


def not_understood(answer: httpx.Response) -> ApiError:
    """The error of a success whose content is not the gateway's."""
    message = f"the server's answer to {answer.request.method} {answer.request.url.path} is not a gateway's"
    return ApiError(ErrorKind.internal, message, request_id=answer.headers.get(REQUEST_ID_HEADER), may_be_done=True)


def timed_out() -> ApiError:
    """The time of a call is over before it was answered."""
    return ApiError(ErrorKind.deadline_exceeded, "no answer within the call's timeout", may_be_done=True)


@contextmanager
def transport_errors() -> Iterator[None]:
    """What httpx raises, as :class:`ApiError`."""
    try:
        yield
    except _NOT_SENT as error:
        raise ApiError(ErrorKind.unavailable, f"the gateway cannot be reached: {_reason(error)}") from error
    except httpx.TimeoutException as error:
        raise timed_out() from error
    except httpx.HTTPError as error:
        raise ApiError(
            ErrorKind.unavailable, f"the connection to the gateway broke: {_reason(error)}", may_be_done=True
        ) from error


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _seconds(header: str | None) -> float | None:
    """Of a Retry-After header in seconds, as the gateway writes it."""
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return min(float(header), RETRY_AFTER_MAX_S)
