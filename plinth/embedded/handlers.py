"""What each path answers; `app.py` has the routes and the keys."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from plinth.embedded import ENGINE, VERSION, lookups, metrics
from plinth.embedded.bodies import Bodies
from plinth.embedded.collection_registry import Catalogue, index_schema, patched
from plinth.embedded.conditions import point_id
from plinth.embedded.config import Config
from plinth.embedded.errors import ApiError, malformed, missing_collection, refused
from plinth.embedded.parameters import check_parameters
from plinth.embedded.snapshots import Snapshots
from plinth.embedded.tokens import Granted

Endpoint = Callable[[Request], Awaitable[Response]]
READER = "reader"
"""The key of a request's state that tells whether it came with the read-only key."""
GRANTED = "granted"
"""The key of a request's state with what its token opens, where it came with one of some collections."""

RED: dict[str, Any] = {
    "status": "red",
    "points_count": 0,
    "indexed_vectors_count": 0,
    "segments_count": 0,
    "indexed": {},
    "running": 0,
}
"""What is said of a collection that does not open."""


class _Snapshot(FileResponse):
    """A large file: each chunk is read by another thread, and 64 KiB take that thread longer to reach than to read."""

    chunk_size = 1 << 20


class Endpoints:
    """The endpoints over one catalogue."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.catalogue = Catalogue(config)
        self.snapshots = Snapshots(self.catalogue, config.snapshots)
        self.requests = metrics.Requests()
        self.bodies = Bodies(config.max_request_mb * 1024 * 1024)
        # One change of configuration at a time; reads and points go on.
        self.changing = asyncio.Lock()

    def operation(self, name: str) -> Endpoint:
        """An endpoint that hands its body to the collection's engine as it is."""

        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            check_parameters(request.query_params)
            engine = self.catalogue.engine(request.path_params["name"])
            async with self.body(request) as body:
                return _result(await engine.call(name, body), began)

        return endpoint

    def query(self, name: str) -> Endpoint:
        """A searching endpoint, which may read a second collection."""

        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            check_parameters(request.query_params)
            engine = self.catalogue.engine(request.path_params["name"])
            granted: Granted | None = getattr(request.state, GRANTED, None)

            async def looked_up(collection: str, operation: str, body: dict[str, Any]) -> Any:
                if granted is not None and not granted.allows(collection, ("r", "rw", "prw")):
                    raise ApiError(403, f"Forbidden: Access to collection {collection} is required")
                return await self.looked_up(collection, operation, body)

            async with self.body(request) as body:
                split = await lookups.resolved(body, looked_up)
                answer = await engine.call(name, split["body"])
                if split["with_lookup"] is not None:
                    result = orjson.loads(answer)
                    await lookups.completed(result["groups"], split["with_lookup"], looked_up)
                    answer = orjson.dumps(result)
                return _result(answer, began)

        return endpoint

    async def looked_up(self, name: str, operation: str, body: dict[str, Any]) -> Any:
        """What another collection answers."""
        try:
            engine = self.catalogue.engine(name)
        except ApiError as error:
            raise ApiError(404, f"Not found: Collection {name} not found") from error
        return orjson.loads(await engine.call(operation, orjson.dumps(body)))

    def body(self, request: Request) -> AbstractAsyncContextManager[bytes]:
        """The body, refused while it is read when it is larger than allowed."""
        return self.bodies.received(request, reader=getattr(request.state, READER, False))

    async def json(self, request: Request) -> Any:
        """The body as JSON."""
        try:
            async with self.body(request) as body:
                return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise malformed(str(error)) from error

    async def root(self, _request: Request) -> Response:
        """Who answers: the embedded engine says that it is no real server."""
        return json_response(200, {"title": ENGINE, "version": VERSION, "commit": "embedded"})

    async def alive(self, _request: Request) -> Response:
        """`/healthz` and `/livez`."""
        return PlainTextResponse("healthz check passed")

    async def ready(self, _request: Request) -> Response:
        """`/readyz`."""
        return PlainTextResponse("all shards are ready")

    async def metrics(self, _request: Request) -> Response:
        """`/metrics`."""
        found = {
            name: {**await self.info(name), "queued": e.queued} for name, e in list(self.catalogue.engines.items())
        }
        return PlainTextResponse(metrics.page(self.requests, found, self.snapshots.created))

    async def telemetry(self, _request: Request) -> Response:
        """`/telemetry`, the little there is."""
        return _ok(
            {
                "app": {"name": ENGINE, "version": VERSION},
                "collections": {"number_of_collections": len(self.catalogue.engines)},
            }
        )

    async def cluster(self, _request: Request) -> Response:
        """`/cluster`."""
        return _ok({"status": "disabled"})

    async def aliases(self, request: Request) -> Response:
        """All aliases, or those of one collection."""
        name = request.path_params.get("name")
        wanted = self.catalogue.resolve(name) if name else None
        found = [
            {"alias_name": alias, "collection_name": target}
            for alias, target in sorted(self.catalogue.aliases.items())
            if wanted is None or target == wanted
        ]
        return _ok({"aliases": found})

    async def collections(self, _request: Request) -> Response:
        """The names of the physical collections."""
        return _ok({"collections": [{"name": name} for name in sorted(self.catalogue.engines)]})

    async def change_aliases(self, request: Request) -> Response:
        """Create, delete, rename: all at once."""
        body = await self.json(request)
        async with self.changing:
            self.catalogue.change_aliases(body)
        return _ok(True)

    async def collection(self, request: Request) -> Response:
        """A collection's status, counts and configuration."""
        name = self.catalogue.resolve(request.path_params["name"])
        engine = self.catalogue.engines[name]
        info = await self.info(name)
        schema = {}
        for field, index in engine.indexes.items():
            params = {"params": index} if isinstance(index, dict) else {}
            kind = index["type"] if isinstance(index, dict) else index
            schema[field] = {"data_type": kind, **params, "points": info["indexed"].get(field, 0)}
        shown = {key: value for key, value in info.items() if key not in ("indexed", "running")}
        return _ok({**shown, "config": engine.config, "payload_schema": schema})

    async def info(self, name: str) -> dict[str, Any]:
        """What the engine says of its shard; of one that does not open, that it is red and why."""
        try:
            described: dict[str, Any] = orjson.loads(await self.catalogue.engines[name].call("info"))
        except ApiError as error:
            return {**RED, "optimizer_status": {"error": str(error)}}
        return described

    async def create(self, request: Request) -> Response:
        """Make a collection; its engine is up when this answers."""
        body = await self.json(request)
        async with self.changing:
            await self.catalogue.create(request.path_params["name"], body)
        return _ok(True)

    async def update(self, request: Request) -> Response:
        """Change a collection in place; the graph is rebuilt behind it where it must be."""
        body = await self.json(request)
        async with self.changing:
            name = self.catalogue.resolve(request.path_params["name"])
            engine = self.catalogue.engines[name]
            config = patched(engine.config, body)
            self.catalogue.save(name, config, engine.indexes)
            await engine.configure(config, engine.indexes)
        return _ok(True)

    async def delete(self, request: Request) -> Response:
        """Drop a collection; false when there is none."""
        async with self.changing:
            return _ok(await self.catalogue.delete(request.path_params["name"]))

    async def exists(self, request: Request) -> Response:
        """Whether a name or an alias leads to a collection."""
        name = request.path_params["name"]
        return _ok({"exists": self.catalogue.aliases.get(name, name) in self.catalogue.engines})

    async def create_index(self, request: Request) -> Response:
        """Index a payload field; a tenant's leads to new links."""
        began = time.perf_counter()
        field, schema = index_schema(await self.json(request))
        async with self.changing:
            name = self.catalogue.resolve(request.path_params["name"])
            engine = self.catalogue.engines[name]
            answer = await engine.call("create_index", orjson.dumps({"field_name": field, "field_schema": schema}))
            await self.reindex(name, {**engine.indexes, field: schema})
        return _result(answer, began)

    async def delete_index(self, request: Request) -> Response:
        """Drop a payload field's index."""
        began = time.perf_counter()
        field = request.path_params["field"]
        async with self.changing:
            name = self.catalogue.resolve(request.path_params["name"])
            engine = self.catalogue.engines[name]
            answer = await engine.call("delete_index", orjson.dumps({"field_name": field}))
            await self.reindex(name, {key: schema for key, schema in engine.indexes.items() if key != field})
        return _result(answer, began)

    async def reindex(self, name: str, indexes: dict[str, Any]) -> None:
        """Record a collection's indexes and tell its engine."""
        engine = self.catalogue.engines[name]
        self.catalogue.save(name, engine.config, indexes)
        await engine.configure(engine.config, indexes)

    async def point(self, request: Request) -> Response:
        """One point by its id."""
        began = time.perf_counter()
        given = request.path_params["id"]
        try:
            identifier = point_id(int(given) if re.fullmatch(r"\+?[0-9]{1,20}", given) else given)
        except ApiError as error:
            raise ApiError(400, f'Wrong input: Can not recognize "{given}" as point id') from error
        body = orjson.dumps({"ids": [identifier], "with_payload": True, "with_vector": True})
        found = orjson.loads(await self.catalogue.engine(request.path_params["name"]).call("retrieve", body))
        if not found:
            raise ApiError(404, f"Not found: Point with id {given} does not exists!")
        return _result(orjson.dumps(found[0]), began)

    async def list_snapshots(self, request: Request) -> Response:
        """A collection's snapshots."""
        return _ok(self.snapshots.list(self.catalogue.resolve(request.path_params["name"])))

    async def create_snapshot(self, request: Request) -> Response:
        """Snapshot a collection."""
        return _ok(await self.snapshots.create(self.catalogue.resolve(request.path_params["name"])))

    async def recover_snapshot(self, request: Request) -> Response:
        """Take a snapshot's content."""
        body = await self.json(request)
        async with self.changing:
            name = request.path_params["name"]
            await self.snapshots.recover(self.catalogue.aliases.get(name, name), body)
        return _ok(True)

    async def download_snapshot(self, request: Request) -> Response:
        """A snapshot's file."""
        name = self.catalogue.resolve(request.path_params["name"])
        return _Snapshot(self.snapshots.path(name, request.path_params["snapshot"]))

    async def delete_snapshot(self, request: Request) -> Response:
        """Remove a snapshot."""
        self.snapshots.delete(self.catalogue.resolve(request.path_params["name"]), request.path_params["snapshot"])
        return _ok(True)

    async def unknown(self, request: Request) -> Response:
        """What the embedded engine does not do, by name."""
        path = request.scope["path"]
        parts = path.strip("/").split("/")
        if (
            len(parts) > 1
            and parts[0] == "collections"
            and self.catalogue.aliases.get(parts[1], parts[1]) not in self.catalogue.engines
        ):
            raise missing_collection(parts[1])
        raise refused(f"{request.method} {path}")


def _ok(result: Any) -> Response:
    return json_response(200, {"result": result, "status": "ok", "time": 0.0})


def _result(result: bytes, began: float) -> Response:
    """The envelope around JSON that the engine has written already."""
    content = b'{"result":%b,"status":"ok","time":%b}' % (result, orjson.dumps(time.perf_counter() - began))
    return Response(content, media_type="application/json")


def json_response(status: int, body: Any) -> Response:
    """JSON with a status."""
    return Response(orjson.dumps(body), status, media_type="application/json")
