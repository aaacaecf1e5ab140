"""The service's methods: each from its request to its response, over the operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from plinth.gateway import model
from plinth.gateway.errors import GatewayError, invalid
from plinth.gateway.grpc_api import messages
from plinth.gateway.operations import Call, Operations
from plinth.vectors.v1 import vectors_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["VectorService"]
Answer = Callable[[Operations, Call, Any], Awaitable[Message]]


@dataclass(frozen=True)
class Method:
    """A method. ``operation`` is what the audit log calls it where the core was not asked."""

    name: str
    operation: str
    request: type[Message]
    answer: Answer


async def _create_collection(
    operations: Operations, call: Call, request: pb.CreateCollectionRequest
) -> pb.CreateCollectionResponse:
    created = await operations.create_collection(call, messages.create_collection(request))
    return pb.CreateCollectionResponse(collection=messages.collection(created))


async def _list_collections(
    operations: Operations, call: Call, _request: pb.ListCollectionsRequest
) -> pb.ListCollectionsResponse:
    return pb.ListCollectionsResponse(names=await operations.list_collections(call))


async def _get_collection(
    operations: Operations, call: Call, request: pb.GetCollectionRequest
) -> pb.GetCollectionResponse:
    return pb.GetCollectionResponse(collection=messages.collection(await operations.get_collection(call, request.name)))


async def _delete_collection(
    operations: Operations, call: Call, request: pb.DeleteCollectionRequest
) -> pb.DeleteCollectionResponse:
    await operations.delete_collection(call, request.name)
    return pb.DeleteCollectionResponse()


async def _upsert(operations: Operations, call: Call, request: pb.UpsertRequest) -> pb.UpsertResponse:
    if not request.HasField("point"):
        raise invalid("point", "this field is missing")
    point = messages.point(request.point, "point")
    try:
        await operations.upsert(call, request.collection, [point])
    except GatewayError as error:
        raise messages.renamed(error, "points.0", "point") from None
    return pb.UpsertResponse()


async def _batch_upsert(operations: Operations, call: Call, request: pb.BatchUpsertRequest) -> pb.BatchUpsertResponse:
    _check_count("points", len(request.points), model.POINTS_MAX)
    points = [messages.point(message, "points", at) for at, message in enumerate(request.points)]
    return pb.BatchUpsertResponse(upserted=await operations.upsert(call, request.collection, points))


async def _search(operations: Operations, call: Call, request: pb.SearchRequest) -> pb.SearchResponse:
    hits = await operations.search(call, request.collection, messages.search(request))
    return pb.SearchResponse(points=messages.scored_points(hits))


async def _batch_search(operations: Operations, call: Call, request: pb.BatchSearchRequest) -> pb.BatchSearchResponse:
    _check_count("searches", len(request.searches), model.QUERIES_MAX)
    for at, search in enumerate(request.searches):
        if search.collection not in ("", request.collection):
            raise invalid(f"searches.{at}.collection", "it is another than that of the batch; leave it out")
    searches = [messages.search(search, "searches", at) for at, search in enumerate(request.searches)]
    results = await operations.search_batch(call, request.collection, searches)
    return pb.BatchSearchResponse(results=[pb.SearchResponse(points=messages.scored_points(hits)) for hits in results])


async def _hybrid_search(
    operations: Operations, call: Call, request: pb.HybridSearchRequest
) -> pb.HybridSearchResponse:
    search = messages.hybrid_search(request)
    results = await operations.search_batch(call, request.collection, [search], operation="hybrid_search")
    return pb.HybridSearchResponse(points=messages.scored_points(results[0]))


async def _get(operations: Operations, call: Call, request: pb.GetRequest) -> pb.GetResponse:
    points = await operations.get(call, request.collection, messages.get(request))
    return pb.GetResponse(points=[messages.stored_point(point) for point in points])


async def _scroll(operations: Operations, call: Call, request: pb.ScrollRequest) -> pb.ScrollResponse:
    page = await operations.scroll(call, request.collection, messages.scroll(request))
    return pb.ScrollResponse(points=[messages.stored_point(point) for point in page.points], next=page.next)


async def _delete(operations: Operations, call: Call, request: pb.DeleteRequest) -> pb.DeleteResponse:
    try:
        deleted = await operations.delete(call, request.collection, model.DeletePoints(ids=[request.id]))
    except GatewayError as error:
        raise messages.renamed(error, "ids.0", "id") from None
    return pb.DeleteResponse(deleted=deleted)


async def _batch_delete(operations: Operations, call: Call, request: pb.BatchDeleteRequest) -> pb.BatchDeleteResponse:
    deleted = await operations.delete(call, request.collection, messages.batch_delete(request))
    return pb.BatchDeleteResponse(deleted=deleted)


def _check_count(field: str, count: int, most: int) -> None:
    """Before each of them is looked at."""
    if not 1 <= count <= most:
        raise invalid(field, f"a batch has 1 to {most}")


_ANSWERS: Mapping[str, tuple[str, Answer]] = {
    "CreateCollection": ("create_collection", _create_collection),
    "ListCollections": ("list_collections", _list_collections),
    "GetCollection": ("get_collection", _get_collection),
    "DeleteCollection": ("delete_collection", _delete_collection),
    "Upsert": ("upsert", _upsert),
    "BatchUpsert": ("upsert", _batch_upsert),
    "Search": ("search", _search),
    "BatchSearch": ("search_batch", _batch_search),
    "HybridSearch": ("hybrid_search", _hybrid_search),
    "Get": ("get", _get),
    "Scroll": ("scroll", _scroll),
    "Delete": ("delete", _delete),
    "BatchDelete": ("delete", _batch_delete),
}
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        name: Method(name, operation, getattr(pb, f"{name}Request"), answer)
        for name, (operation, answer) in _ANSWERS.items()
    }
)
