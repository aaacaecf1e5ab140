"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import Scope

from plinth.gateway.audit import AuditLog, AuditRecord
from plinth.gateway.errors import ErrorKind, GatewayError

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    ErrorKind.invalid_argument: "Invalid request",
    ErrorKind.unauthenticated: "Not authenticated",
    ErrorKind.permission_denied: "Not permitted",
    ErrorKind.not_found: "Not found",
    ErrorKind.already_exists: "Already exists",
    ErrorKind.resource_exhausted: "Too much",
    ErrorKind.deadline_exceeded: "Timed out",
    ErrorKind.unavailable: "Unavailable",
    ErrorKind.internal: "Internal error",
}


def refusal(error: GatewayError, scope: Scope, audit: AuditLog) -> JSONResponse:
    """The answer to a request whose caller is known; it is audited here where the core was not asked."""
    state = scope.get("state", {})
    call, request_id = state.get("call"), state["request_id"]
    if call is not None and not call.audited:
        collection = scope.get("path_params", {}).get("collection")
        audit.write(AuditRecord("refused", request_id, call.caller, collection, 0, error.kind.value, 0.0, "rest"))
    return problem(error, request_id)


def problem(error: GatewayError, request_id: str) -> JSONResponse:
    """The answer for an error."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES[error.kind],
        "status": error.http_status,
        "detail": error.message,
        "code": error.kind.value,
        "request_id": request_id,
    }
    if error.violations:
        content["violations"] = [{"field": each.field, "reason": each.reason} for each in error.violations]
    # The guard adds the request's id, as to every answer.
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.kind is ErrorKind.unauthenticated:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(content, error.http_status, headers, MEDIA_TYPE)
