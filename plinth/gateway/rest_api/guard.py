"""What stands before every route: the caller, the request's id and deadline, what is counted, and what is answered."""

from __future__ import annotations

import hmac
import logging
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.gateway.audit import AuditLog, AuditRecord
from plinth.gateway.errors import ErrorKind, GatewayError, internal, invalid
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.operations import Call
from plinth.gateway.request_id import HEADER as REQUEST_ID_HEADER
from plinth.gateway.request_id import request_id_of
from plinth.gateway.rest_api.headers import DEADLINE
from plinth.gateway.rest_api.problems import problem
from plinth.gateway.tokens import TokenVerifier
from plinth.gateway.tracing import TRACEPARENT, Tracing, fail
from plinth.system.http_connections import LOGIN

OPEN_PATHS = frozenset({"/readyz", "/healthz", "/livez", "/docs", "/openapi.json"})
METRICS_PATH = "/metrics"
log = logging.getLogger("plinth.gateway.rest")


class Guard:
    """The outermost of the application. ``request_s`` is the longest that a request may take, in seconds."""

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        audit: AuditLog,
        metrics: GatewayMetrics,
        *,
        request_s: float,
        metrics_token: str | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._audit = audit
        self._metrics = metrics
        self._request_s = request_s
        self._metrics_token = metrics_token
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_of(headers.get(REQUEST_ID_HEADER))
        answer = _Answer(send, request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        try:
            await self._admit(scope, headers, request_id)
            if self._tracing and "call" in scope["state"]:
                await self._traced(self._tracing, scope, receive, answer)
            else:
                await self._app(scope, receive, answer.send)
        except GatewayError as error:
            await answer.problem(error, scope, receive)
        except ClientDisconnect:
            answer.status = 499
        except Exception:
            log.exception("request %s failed", request_id)
            await answer.problem(internal(), scope, receive)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.http_request(scope["method"] if route != "none" else "any", route, answer.status)

    async def _traced(self, tracing: Tracing, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Answer a request of a caller who is known, within a span, which has the template of the path alone."""
        method, headers = scope["method"], Headers(scope=scope)
        attributes = {"http.request.method": method, "plinth.request_id": scope["state"]["request_id"]}
        with tracing.server_span(method, headers.get(TRACEPARENT), attributes) as span:
            await self._app(scope, receive, answer.send)
            route = getattr(scope.get("route"), "path", "none")
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": answer.status})
            if answer.status >= 500:
                fail(span, str(answer.status))

    async def _admit(self, scope: Scope, headers: Headers, request_id: str) -> None:
        path = scope["path"]
        if path in OPEN_PATHS:
            return
        if path == METRICS_PATH:
            self._admit_scraper(headers)
            return
        began = time.monotonic()
        try:
            caller = await self._verifier.caller(headers.get("authorization"))
            deadline = began + self._timeout(headers)
        except GatewayError as error:
            duration = (time.monotonic() - began) * 1000
            self._audit.write(AuditRecord("refused", request_id, None, None, 0, error.kind.value, duration, "rest"))
            raise
        # A connection that has shown a token is no stranger's (plinth.system.http_connections).
        if log_in := scope["state"].get(LOGIN):
            log_in()
        scope["state"]["call"] = Call(caller, request_id, deadline, "rest")

    def _admit_scraper(self, headers: Headers) -> None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        known = self._metrics_token
        if known is not None and not (kind.lower() == "bearer" and hmac.compare_digest(token.encode(), known.encode())):
            raise GatewayError(ErrorKind.unauthenticated, "the metrics are open to who has their token")

    def _timeout(self, headers: Headers) -> float:
        given = headers.get(DEADLINE)
        if given is None:
            return self._request_s
        if not given.isascii() or not given.isdigit() or not int(given[:9]) > 0:
            raise invalid(DEADLINE, "a timeout is a whole number of milliseconds")
        return min(self._request_s, int(given[:9]) / 1000)


class _Answer:
    """What is sent, whether it has begun, and with which status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            names = {name.lower() for name, _ in message["headers"]}
            if REQUEST_ID_HEADER.encode() not in names:
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER.encode(), self._request_id.encode())]
        await self._send(message)

    async def problem(self, error: GatewayError, scope: Scope, receive: Receive) -> None:
        if not self.status:
            await problem(error, self._request_id)(scope, receive, self.send)
