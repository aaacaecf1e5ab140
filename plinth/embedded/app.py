"""The HTTP front: routes, keys, and errors in Qdrant's envelope."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from typing import Literal

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from plinth.embedded.config import Config
from plinth.embedded.errors import ApiError, internal
from plinth.embedded.handlers import GRANTED, READER, Endpoint, Endpoints, json_response
from plinth.embedded.tokens import Granted, Level, TokenError, checked, is_token
from plinth.system.http_connections import LOGIN

OPEN_PATHS = frozenset({"/", "/healthz", "/livez", "/readyz"})
EVERY_METHOD = ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE")
POINTS = "/collections/{name}/points"
READING_POSTS = frozenset(
    {
        "/collections/{name}/facet",
        POINTS,
        *(f"{POINTS}/{path}" for path in ("scroll", "count")),
        *(f"{POINTS}/{kind}{form}" for kind in ("query", "search", "recommend") for form in ("", "/batch", "/groups")),
    }
)
# What a token of a collection opens besides its points, where it may write.
OF_A_COLLECTION = frozenset(
    {
        ("PUT", "/collections/{name}/index"),
        ("DELETE", "/collections/{name}/index/{field:path}"),
        ("POST", "/collections/{name}/snapshots"),
        ("DELETE", "/collections/{name}/snapshots/{snapshot}"),
    }
)
log = logging.getLogger("plinth.embedded")


class Front:
    """The routes to the endpoints, behind the keys."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.endpoints = Endpoints(config)

    def routes(self) -> list[Route]:
        """Every route, by Qdrant's paths."""
        do = self.endpoints
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/", do.root),
            ("GET", "/healthz", do.alive),
            ("GET", "/livez", do.alive),
            ("GET", "/readyz", do.ready),
            ("GET", "/metrics", do.metrics),
            ("GET", "/telemetry", do.telemetry),
            ("GET", "/cluster", do.cluster),
            ("GET", "/aliases", do.aliases),
            ("GET", "/collections", do.collections),
            ("POST", "/collections/aliases", do.change_aliases),
            ("GET", "/collections/{name}", do.collection),
            ("PUT", "/collections/{name}", do.create),
            ("PATCH", "/collections/{name}", do.update),
            ("DELETE", "/collections/{name}", do.delete),
            ("GET", "/collections/{name}/exists", do.exists),
            ("GET", "/collections/{name}/aliases", do.aliases),
            ("PUT", "/collections/{name}/index", do.create_index),
            ("DELETE", "/collections/{name}/index/{field:path}", do.delete_index),
            ("POST", "/collections/{name}/facet", do.operation("facet")),
            ("PUT", POINTS, do.operation("upsert")),
            ("POST", POINTS, do.operation("retrieve")),
            ("PUT", f"{POINTS}/payload", do.operation("overwrite_payload")),
            ("POST", f"{POINTS}/payload", do.operation("set_payload")),
            ("PUT", f"{POINTS}/vectors", do.operation("update_vectors")),
            *(
                ("POST", f"{POINTS}/{path}", do.operation(operation))
                for path, operation in (
                    ("delete", "delete"),
                    ("payload/delete", "delete_payload"),
                    ("payload/clear", "clear_payload"),
                    ("vectors/delete", "delete_vectors"),
                    ("batch", "batch"),
                    ("scroll", "scroll"),
                    ("count", "count"),
                )
            ),
            *(
                ("POST", f"{POINTS}/{kind}{form}", do.query(f"{kind}{form}".replace("/", "_")))
                for kind in ("query", "search", "recommend")
                for form in ("", "/batch", "/groups")
            ),
            ("GET", f"{POINTS}/{{id}}", do.point),
            ("GET", "/collections/{name}/snapshots", do.list_snapshots),
            ("POST", "/collections/{name}/snapshots", do.create_snapshot),
            ("PUT", "/collections/{name}/snapshots/recover", do.recover_snapshot),
            ("GET", "/collections/{name}/snapshots/{snapshot}", do.download_snapshot),
            ("DELETE", "/collections/{name}/snapshots/{snapshot}", do.delete_snapshot),
        ]
        routes = [Route(path, self.wrapped(path, endpoint), methods=[method]) for method, path, endpoint in table]
        return [
            *routes,
            Route("/{rest:path}", self.wrapped("", do.unknown), methods=EVERY_METHOD),
        ]

    def wrapped(self, path: str, endpoint: Endpoint) -> Endpoint:
        """An endpoint behind the keys, with errors in the envelope and its time on record."""
        pattern = path.replace("{name}", "{collection_name}")
        reported = "/points" in path or path.endswith("/index")

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            response = self.denied(request, path)
            if response is None:
                try:
                    response = await endpoint(request)
                except ApiError as error:
                    response = error_response(error, began)
                except ClientDisconnect:
                    response = Response(status_code=400)
                except Exception as error:
                    response = error_response(internal(error, f"{request.method} {request.scope['path']}"), began)
            if reported:
                self.endpoints.requests.record(
                    request.method, pattern, response.status_code, time.perf_counter() - began
                )
            return response

        return answer

    def denied(self, request: Request, path: str) -> Response | None:
        """401 without a valid key, 403 where it does not open what is asked for; None when the request may pass."""
        keys = (self.config.api_key, self.config.alt_api_key, self.config.read_only_api_key)
        log_in = getattr(request.state, LOGIN, lambda: None)
        if not any(keys):
            log_in()
            return None
        if path in OPEN_PATHS:
            return None
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        full, also_full, reading = (
            key is not None and hmac.compare_digest(given.encode(), key.encode()) for key in keys
        )
        granted: Literal["r", "m"] | Granted | None = "m" if full or also_full else "r" if reading else None
        if granted is None and self.config.jwt_rbac and is_token(given):
            try:
                granted = checked(given, (self.config.api_key, self.config.alt_api_key))
            except TokenError as error:
                return PlainTextResponse(f"Forbidden: Invalid JWT token: {error}", 403)
        if granted is None:
            return PlainTextResponse("Must provide an API key or an Authorization bearer token", 401)
        log_in()
        if granted == "m":
            return None
        reads = request.method in ("GET", "HEAD") or (request.method == "POST" and path in READING_POSTS)
        if reads or granted == "r":
            setattr(request.state, READER, True)
        if isinstance(granted, Granted):
            return self._denied_by_token(request, path, granted, reads=reads)
        return None if reads else PlainTextResponse("Forbidden: Write access is required", 403)

    def _denied_by_token(self, request: Request, path: str, granted: Granted, *, reads: bool) -> Response | None:
        """403 where a token does not open the collection of the request that far."""
        collection = request.path_params.get("name")
        setattr(request.state, GRANTED, granted)
        level: tuple[Level, ...] = ()
        if collection is not None and reads:
            level = ("r", "rw", "prw")
        elif collection is not None and path.startswith(POINTS):
            level = ("rw", "prw")
        elif (request.method, path) in OF_A_COLLECTION:
            level = ("rw",)
        if collection is not None and granted.allows(collection, level):
            return None
        return PlainTextResponse("Forbidden: the token does not open this", 403)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Start the engines of known collections behind the scenes; at the end let each flush."""
        warming = asyncio.create_task(self._warm())
        yield
        warming.cancel()
        await asyncio.gather(*(engine.stop() for engine in self.endpoints.catalogue.engines.values()))

    async def _warm(self) -> None:
        for name, engine in list(self.endpoints.catalogue.engines.items()):
            try:
                await engine.start()
            except ApiError as error:
                log.error("collection %s does not open: %s", name, error)


def error_response(error: ApiError, began: float) -> Response:
    """Qdrant's envelope of an error."""
    return json_response(error.status, {"status": {"error": str(error)}, "time": time.perf_counter() - began})


def application(config: Config) -> Starlette:
    """The ASGI application."""
    front = Front(config)
    return Starlette(routes=front.routes(), lifespan=front.lifespan)
