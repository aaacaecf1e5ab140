"""The REST application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from plinth.gateway.audit import AuditLog
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.metrics_page import MetricsPage, own_page
from plinth.gateway.operations import Operations
from plinth.gateway.readiness import Readiness
from plinth.gateway.rest_api.bodies import BoundedRequest
from plinth.gateway.rest_api.direct_routes import DirectRoutes
from plinth.gateway.rest_api.guard import METRICS_PATH, Guard
from plinth.gateway.rest_api.job_routes import job_routes
from plinth.gateway.rest_api.problems import refusal
from plinth.gateway.rest_api.routes import collection_routes
from plinth.gateway.tokens import TokenVerifier
from plinth.gateway.tracing import Tracing
from plinth.gateway.validation import validation_error

TITLE = "Plinth gateway"


def rest_app(
    operations: Operations,
    verifier: TokenVerifier,
    audit: AuditLog,
    metrics: GatewayMetrics,
    readiness: Readiness,
    jobs: Jobs,
    *,
    request_s: float = 30.0,
    body_bytes: int = 32 * 2**20,
    metrics_token: str | None = None,
    metrics_page: MetricsPage | None = None,
    tracing: Tracing | None = None,
) -> ASGIApp:
    """The whole application, behind its guard."""
    app = FastAPI(
        title=TITLE,
        version="1",
        description="Vectors and searches of organisations that are kept apart.",
        redoc_url=None,
        redirect_slashes=False,
    )

    class Bounded(BoundedRequest):
        pass

    Bounded.body_bytes = body_bytes
    bounded = _bounded_route(Bounded)
    collections = collection_routes(operations, route_class=bounded)
    app.include_router(collections)
    app.include_router(job_routes(jobs, route_class=bounded))
    _open_routes(app, readiness, metrics_page or own_page(metrics.registry))
    _problems(app, audit)
    direct = DirectRoutes(app, collections.routes, Bounded, audit)
    return Guard(direct, verifier, audit, metrics, request_s=request_s, metrics_token=metrics_token, tracing=tracing)


def _bounded_route(request_class: type[BoundedRequest]) -> type[APIRoute]:
    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handler = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                return await handler(request_class(request.scope, request.receive))

            return bounded

    return BoundedRoute


def _open_routes(app: FastAPI, readiness: Readiness, metrics_page: MetricsPage) -> None:
    @app.get("/readyz", tags=["health"], summary="Whether every dependency answers")
    async def readyz() -> JSONResponse:
        report = await readiness.report()
        return JSONResponse(report, 200 if report["ready"] else 503)

    @app.get("/healthz", tags=["health"], summary="Whether the gateway itself serves")
    @app.get("/livez", tags=["health"], include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(METRICS_PATH, include_in_schema=False)
    async def page() -> Response:
        return Response(await metrics_page(), media_type=CONTENT_TYPE_LATEST)


def _problems(app: FastAPI, audit: AuditLog) -> None:
    """Answers for what FastAPI refuses before the core is asked; they are audited here, and nowhere else."""

    def refuse(request: Request, error: GatewayError) -> Response:
        return refusal(error, request.scope, audit)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> Response:
        return refuse(request, validation_error(error.errors(), error.body))

    @app.exception_handler(GatewayError)
    async def gateway_error(request: Request, error: GatewayError) -> Response:
        return refuse(request, error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, GatewayError):
            # FastAPI has one word for whatever a body's reading raises.
            return refuse(request, error.__cause__)
        kind = ErrorKind.not_found if error.status_code in (404, 405) else ErrorKind.invalid_argument
        message = "there is no such path" if error.status_code == 404 else "this path does not take the method"
        return refuse(request, GatewayError(kind, message if error.status_code in (404, 405) else str(error.detail)))
