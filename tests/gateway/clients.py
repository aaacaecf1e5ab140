"""A client for each protocol, with one method for each operation, so that one test asks both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import httpx
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from plinth.gateway.caller import Scope
from plinth.vectors.v1 import vectors_pb2 as pb
from plinth.vectors.v1 import vectors_pb2_grpc
from tests.gateway.conftest import Gateway, login

PROTOCOLS = ("grpc", "rest")
CHANNEL_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass
class ApiError(Exception):
    """A refusal, the same in both protocols; `kind` is one of plinth.gateway.errors.ErrorKind."""

    kind: str
    message: str
    fields: tuple[str, ...] = ()
    retry_after_s: float | None = None
    request_id: str | None = None


class VectorClient(Protocol):
    """What an application asks; points, queries and filters are written as REST's JSON has them."""

    protocol: str

    def create_collection(self, name: str, dimension: int | None, distance: str | None) -> dict[str, Any]: ...
    def list_collections(self) -> list[str]: ...
    def get_collection(self, name: str) -> dict[str, Any]: ...
    def delete_collection(self, name: str) -> None: ...
    def upsert(self, collection: str, point: Mapping[str, Any]) -> None: ...
    def batch_upsert(self, collection: str, points: Sequence[Mapping[str, Any]]) -> int: ...
    def search(self, collection: str, **query: Any) -> list[dict[str, Any]]: ...
    def batch_search(self, collection: str, queries: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]: ...
    def hybrid_search(self, collection: str, **query: Any) -> list[dict[str, Any]]: ...
    def get(self, collection: str, ids: Sequence[str], **shown: Any) -> list[dict[str, Any]]: ...
    def scroll(self, collection: str, **page: Any) -> tuple[list[dict[str, Any]], str | None]: ...
    def delete(self, collection: str, id: str) -> None: ...
    def batch_delete(self, collection: str, **selection: Any) -> int: ...
    def close(self) -> None: ...


def connect(gateway: Gateway, protocol: str, organisation: str, user: str = "user", *scopes: Scope) -> VectorClient:
    """A client with a token."""
    headers = login(organisation, user, *scopes)
    return {"grpc": GrpcClient, "rest": RestClient}[protocol](gateway, headers)


class GrpcClient:
    """Over the generated stubs."""

    protocol = "grpc"

    def __init__(self, gateway: Gateway, headers: Mapping[str, str]) -> None:
        self.channel = grpc.insecure_channel(gateway.grpc_address, options=CHANNEL_OPTIONS)
        self.stub = vectors_pb2_grpc.VectorServiceStub(self.channel)
        self.metadata = tuple(headers.items())

    def call(self, method: str, request: Any, timeout: float | None = 30) -> Any:
        with grpc_errors():
            return getattr(self.stub, method)(request, metadata=self.metadata, timeout=timeout)

    def create_collection(self, name: str, dimension: int | None, distance: str | None) -> dict[str, Any]:
        request = pb.CreateCollectionRequest(name=name, dimension=dimension)
        if distance is not None:
            request.distance = pb.Distance.Value(f"DISTANCE_{distance.upper()}")
        return _collection(self.call("CreateCollection", request).collection)

    def list_collections(self) -> list[str]:
        return list(self.call("ListCollections", pb.ListCollectionsRequest()).names)

    def get_collection(self, name: str) -> dict[str, Any]:
        return _collection(self.call("GetCollection", pb.GetCollectionRequest(name=name)).collection)

    def delete_collection(self, name: str) -> None:
        self.call("DeleteCollection", pb.DeleteCollectionRequest(name=name))

    def upsert(self, collection: str, point: Mapping[str, Any]) -> None:
        self.call("Upsert", pb.UpsertRequest(collection=collection, point=point_message(point)))

    def batch_upsert(self, collection: str, points: Sequence[Mapping[str, Any]]) -> int:
        request = pb.BatchUpsertRequest(collection=collection, points=[point_message(point) for point in points])
        upserted: int = self.call("BatchUpsert", request).upserted
        return upserted

    def search(self, collection: str, **query: Any) -> list[dict[str, Any]]:
        return _points(self.call("Search", pb.SearchRequest(collection=collection, **query_fields(query))).points)

    def batch_search(self, collection: str, queries: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
        searches = [pb.SearchRequest(**query_fields(query)) for query in queries]
        answer = self.call("BatchSearch", pb.BatchSearchRequest(collection=collection, searches=searches))
        return [_points(result.points) for result in answer.results]

    def hybrid_search(self, collection: str, **query: Any) -> list[dict[str, Any]]:
        request = pb.HybridSearchRequest(collection=collection, **query_fields(query))
        return _points(self.call("HybridSearch", request).points)

    def get(self, collection: str, ids: Sequence[str], **shown: Any) -> list[dict[str, Any]]:
        return _points(self.call("Get", pb.GetRequest(collection=collection, ids=ids, **query_fields(shown))).points)

    def scroll(self, collection: str, **page: Any) -> tuple[list[dict[str, Any]], str | None]:
        answer = self.call("Scroll", pb.ScrollRequest(collection=collection, **query_fields(page)))
        return _points(answer.points), answer.next if answer.HasField("next") else None

    def delete(self, collection: str, id: str) -> None:
        self.call("Delete", pb.DeleteRequest(collection=collection, id=id))

    def batch_delete(self, collection: str, **selection: Any) -> int:
        request = pb.BatchDeleteRequest(collection=collection, **query_fields(selection))
        deleted: int = self.call("BatchDelete", request).deleted
        return deleted

    def close(self) -> None:
        self.channel.close()


class RestClient:
    """Over JSON, below /v1."""

    protocol = "rest"

    def __init__(self, gateway: Gateway, headers: Mapping[str, str]) -> None:
        self.http = httpx.Client(base_url=f"{gateway.url}/v1", headers=dict(headers), timeout=30, trust_env=False)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        if answer.is_success:
            return answer.json() if answer.content else None
        problem = answer.json()
        raise ApiError(
            problem["code"],
            problem["detail"],
            tuple(violation["field"] for violation in problem.get("violations", ())),
            float(answer.headers["retry-after"]) if "retry-after" in answer.headers else None,
            answer.headers["x-request-id"],
        )

    def create_collection(self, name: str, dimension: int | None, distance: str | None) -> dict[str, Any]:
        given = {"name": name, "dimension": dimension, "distance": distance}
        body = {key: value for key, value in given.items() if value is not None}
        created: dict[str, Any] = self.call("POST", "/collections", body)
        return created

    def list_collections(self) -> list[str]:
        names: list[str] = self.call("GET", "/collections")["collections"]
        return names

    def get_collection(self, name: str) -> dict[str, Any]:
        collection: dict[str, Any] = self.call("GET", f"/collections/{name}")
        return collection

    def delete_collection(self, name: str) -> None:
        self.call("DELETE", f"/collections/{name}")

    def upsert(self, collection: str, point: Mapping[str, Any]) -> None:
        self.batch_upsert(collection, [point])

    def batch_upsert(self, collection: str, points: Sequence[Mapping[str, Any]]) -> int:
        count: int = self.call("PUT", f"/collections/{collection}/points", {"points": points})["count"]
        return count

    def search(self, collection: str, **query: Any) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = self.call("POST", f"/collections/{collection}/search", query)["hits"]
        return hits

    def batch_search(self, collection: str, queries: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
        answer = self.call("POST", f"/collections/{collection}/search/batch", {"searches": queries})
        return [result["hits"] for result in answer["results"]]

    def hybrid_search(self, collection: str, **query: Any) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = self.call("POST", f"/collections/{collection}/search/hybrid", query)["hits"]
        return hits

    def get(self, collection: str, ids: Sequence[str], **shown: Any) -> list[dict[str, Any]]:
        answer = self.call("POST", f"/collections/{collection}/points/get", {"ids": ids, **shown})
        points: list[dict[str, Any]] = answer["points"]
        return points

    def scroll(self, collection: str, **page: Any) -> tuple[list[dict[str, Any]], str | None]:
        answer = self.call("POST", f"/collections/{collection}/points/scroll", page)
        return answer["points"], answer["next"]

    def delete(self, collection: str, id: str) -> None:
        self.call("DELETE", f"/collections/{collection}/points/{id}")

    def batch_delete(self, collection: str, **selection: Any) -> int:
        count: int = self.call("POST", f"/collections/{collection}/points/delete", selection)["count"]
        return count

    def close(self) -> None:
        self.http.close()


@contextmanager
def grpc_errors() -> Iterator[None]:
    """Refusals of gRPC as :class:`ApiError`, with their details."""
    try:
        yield
    except grpc.RpcError as error:
        raise api_error(error) from None


def api_error(error: grpc.RpcError) -> ApiError:
    """What a status and its details say."""
    fields: list[str] = []
    retry_after_s = None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            fields += [violation.field for violation in bad_request.field_violations]
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    request_id = dict(error.trailing_metadata() or ()).get("x-request-id")
    return ApiError(error.code().name, error.details(), tuple(fields), retry_after_s, request_id)


def struct(content: Mapping[str, Any]) -> struct_pb2.Struct:
    """An object as the JSON of protocol buffers has it."""
    return json_format.ParseDict(content, struct_pb2.Struct())


def point_message(point: Mapping[str, Any]) -> pb.Point:
    return pb.Point(id=point["id"], vector=point["vector"], payload=struct(point.get("payload", {})))


def query_fields(query: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a message for those of REST's JSON."""
    fields = dict(query)
    if isinstance(fields.get("with_payload"), list):
        fields["payload_fields"] = fields.pop("with_payload")
    if fields.get("filter") is not None:
        fields["filter"] = filter_message(fields["filter"])
    if "parameters" in fields:
        fields["parameters"] = struct(fields["parameters"])
    return fields


def filter_message(content: Mapping[str, Any]) -> pb.Filter:
    message = pb.Filter(is_empty=content.get("is_empty", ()))
    for key, value in content.get("match", {}).items():
        message.match[key].CopyFrom(_match(value))
    for key, bounds in content.get("range", {}).items():
        message.range[key].SetInParent()
        for name, bound in bounds.items():
            setattr(getattr(message.range[key], name), "date" if isinstance(bound, str) else "number", bound)
    for name in ("must", "should", "must_not"):
        getattr(message, name).extend(filter_message(inner) for inner in content.get(name, ()))
    for nested in content.get("nested", ()):
        message.nested.append(pb.Nested(key=nested["key"], filter=filter_message(nested["filter"])))
    return message


def _match(value: Any) -> pb.Match:
    if not isinstance(value, list):
        return pb.Match(**{_kind(value): value})
    values = pb.Values()
    for one in value:
        getattr(values, f"{_kind(one)}s").append(one)
    return pb.Match(any=values)


def _kind(value: Any) -> str:
    return {bool: "boolean", int: "integer", str: "text"}[type(value)]


def _collection(message: pb.Collection) -> dict[str, Any]:
    distance = pb.Distance.Name(message.distance).removeprefix("DISTANCE_").capitalize()
    return {
        "name": message.name,
        "dimension": message.dimension,
        "distance": distance,
        "points": message.points,
        "shared": message.shared,
    }


def _points(points: Any) -> list[dict[str, Any]]:
    return [_point(point) for point in points]


def _point(message: Any) -> dict[str, Any]:
    point: dict[str, Any] = {"id": message.id}
    if message.HasField("payload"):
        point["payload"] = json_format.MessageToDict(message.payload)
    if len(message.vector):
        point["vector"] = list(message.vector)
    if isinstance(message, pb.ScoredPoint):
        point["score"] = message.score
    return point
