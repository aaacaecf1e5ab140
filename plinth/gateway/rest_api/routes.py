"""The routes of collections and points, below `/v1`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field, StrictStr, TypeAdapter

from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.model import (
    POINTS_MAX,
    QUERIES_MAX,
    QUERY_TEXT_MAX,
    Collection,
    CreateCollection,
    DeletePoints,
    Get,
    Hit,
    HybridSearch,
    Message,
    Page,
    Point,
    Scroll,
    Search,
    StoredPoint,
)
from plinth.gateway.operations import Call, Operations

PROBLEM = {
    "description": "A problem document (RFC 9457): `detail` is one sentence, `violations` name the fields.",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["title", "status", "detail", "code", "request_id"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                    "request_id": {"type": "string"},
                    "violations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                        },
                    },
                },
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 409, 413, 429, 500, 503, 504), PROBLEM)


class Points(Message):
    """Points to write, all or none."""

    points: list[Point] = Field(min_length=1, max_length=POINTS_MAX)


class Count(Message):
    """How many points were written, or deleted."""

    count: int


class Searches(Message):
    """Several searches of one collection."""

    searches: list[Search] = Field(min_length=1, max_length=QUERIES_MAX)


class TextSearch(Search):
    """A search as the first document writes it: a collection and a text."""

    collection: StrictStr
    query: StrictStr = Field(min_length=1, max_length=QUERY_TEXT_MAX)

    def _one_query(self) -> TextSearch:
        if self.vector is not None or self.text is not None:
            raise ValueError("the text of this search is its query")
        return self


async def call_of(request: Request) -> Call:
    """The call of a request: the guard has let it in. It is async, for FastAPI runs all else in a thread."""
    call: Call = request.scope["state"]["call"]
    return call


Calling = Annotated[Call, Depends(call_of)]
CollectionName = Annotated[
    str, Path(alias="collection", description="A collection of the organisation, or a shared one.")
]


_HITS, _POINTS = TypeAdapter(list[Hit]), TypeAdapter(list[StoredPoint])


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _hits(hits: list[Hit]) -> bytes:
    return b'{"hits":%b}' % _HITS.dump_json(hits, exclude_none=True)


def collection_routes(operations: Operations, *, route_class: type[APIRoute]) -> APIRouter:
    """Every route, over the operations."""
    router = APIRouter(route_class=route_class, responses=REFUSALS)

    @router.post("/v1/collections", status_code=201, tags=["collections"])
    async def create_collection(call: Calling, request: CreateCollection) -> Collection:
        return await operations.create_collection(call, request)

    @router.get("/v1/collections", tags=["collections"])
    async def list_collections(call: Calling) -> dict[str, list[str]]:
        return {"collections": await operations.list_collections(call)}

    @router.get("/v1/collections/{collection}", tags=["collections"])
    async def get_collection(call: Calling, collection: CollectionName) -> Collection:
        return await operations.get_collection(call, collection)

    @router.delete("/v1/collections/{collection}", status_code=204, tags=["collections"])
    async def delete_collection(call: Calling, collection: CollectionName) -> Response:
        await operations.delete_collection(call, collection)
        return Response(status_code=204)

    @router.put("/v1/collections/{collection}/points", tags=["points"])
    async def upsert(call: Calling, collection: CollectionName, request: Points) -> Count:
        return Count(count=await operations.upsert(call, collection, request.points))

    @router.post("/v1/collections/{collection}/points/get", tags=["points"], response_model=None)
    async def get(call: Calling, collection: CollectionName, request: Get) -> Response:
        points = await operations.get(call, collection, request)
        return _json(b'{"points":%b}' % _POINTS.dump_json(points, exclude_none=True))

    @router.get("/v1/collections/{collection}/points/{id:path}", tags=["points"])
    async def get_point(call: Calling, collection: CollectionName, id: str) -> StoredPoint:
        points = await operations.get(call, collection, Get(ids=[id], with_vectors=True))
        if not points:
            raise GatewayError(ErrorKind.not_found, "point not found")
        return points[0]

    @router.delete("/v1/collections/{collection}/points/{id:path}", status_code=204, tags=["points"])
    async def delete_point(call: Calling, collection: CollectionName, id: str) -> Response:
        await operations.delete(call, collection, DeletePoints(ids=[id]))
        return Response(status_code=204)

    @router.post("/v1/collections/{collection}/points/delete", tags=["points"])
    async def delete(call: Calling, collection: CollectionName, request: DeletePoints) -> Count:
        return Count(count=await operations.delete(call, collection, request))

    @router.post("/v1/collections/{collection}/points/scroll", tags=["points"])
    async def scroll(call: Calling, collection: CollectionName, request: Scroll) -> Page:
        return await operations.scroll(call, collection, request)

    @router.post("/v1/collections/{collection}/search", tags=["search"], response_model=None)
    async def search(call: Calling, collection: CollectionName, request: Search) -> Response:
        return _json(_hits(await operations.search(call, collection, request)))

    @router.post("/v1/collections/{collection}/search/batch", tags=["search"], response_model=None)
    async def search_batch(call: Calling, collection: CollectionName, request: Searches) -> Response:
        results = await operations.search_batch(call, collection, request.searches)
        return _json(b'{"results":[%b]}' % b",".join(map(_hits, results)))

    @router.post("/v1/collections/{collection}/search/hybrid", tags=["search"], response_model=None)
    async def hybrid_search(call: Calling, collection: CollectionName, request: HybridSearch) -> Response:
        hits = await operations.search_batch(call, collection, [request], operation="hybrid_search")
        return _json(_hits(hits[0]))

    @router.post("/search", tags=["search"], response_model=None)
    async def text_search(call: Calling, request: TextSearch) -> Response:
        fields = request.model_dump(exclude={"collection", "query", "text", "vector"}, exclude_unset=True)
        hits = await operations.search(call, request.collection, Search(text=request.query, **fields))
        return _json(_hits(hits))

    return router
