"""Each operation of the gateway as the request that asks for it, and what its answer is; pure.

Vectors are sequences of numbers or arrays of numpy. A filter is the object of :mod:`plinth.gateway.filters`, such as
``{"match": {"source": "web"}, "range": {"year": {"gte": 2024}}}``. What is wrong with a request the gateway says, in
an :class:`~plinth.gateway.client.ApiError` of the kind `INVALID_ARGUMENT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, TypeAdapter

from plinth.errors import UserError
from plinth.gateway.client.errors import ApiError
from plinth.gateway.errors import ErrorKind
from plinth.gateway.jobs.model import EmbedItem, Job
from plinth.gateway.model import Collection, Hit, Hnsw, Page, Point, Search, StoredPoint
from plinth.gateway.rest_api.headers import IDEMPOTENCY_KEY
from plinth.system.http_client import url_path

Result = TypeVar("Result")
Vector = Sequence[float] | npt.NDArray[np.floating[Any]]
Object = Mapping[str, Any]
Shown = bool | Sequence[str]
Distance = Literal["Cosine", "Euclidean", "Dot"]
_POINTS, _HITS, _JOBS = TypeAdapter(list[StoredPoint]), TypeAdapter(list[Hit]), TypeAdapter(list[Job])
_NAMES, _COUNT, _ID = TypeAdapter(list[str]), TypeAdapter(int), TypeAdapter(str)


@dataclass(frozen=True)
class Call(Generic[Result]):
    """A request, and how its answer is read.

    ``read`` raises ValueError, KeyError or TypeError for what is no answer of a gateway. A call that is not
    ``repeatable`` says something else when it is done twice.
    """

    method: str
    path: str
    read: Callable[[Any], Result]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True


def create_collection(
    name: str, *, dimension: int, distance: Distance, on_disk: bool = False, hnsw: Hnsw | Object | None = None
) -> Call[Collection]:
    """Make a collection of the organisation."""
    given = {"name": name, "dimension": dimension, "distance": distance, "on_disk": on_disk, "hnsw": hnsw}
    return Call("POST", "/v1/collections", _model(Collection), _json(given), repeatable=False)


def list_collections() -> Call[list[str]]:
    """The names of the organisation's collections, and of those that it shares."""
    return Call("GET", "/v1/collections", lambda answer: _NAMES.validate_python(answer["collections"]))


def get_collection(name: str) -> Call[Collection]:
    """A collection, and how many points the organisation has in it."""
    return Call("GET", _path(name), _model(Collection))


def delete_collection(name: str) -> Call[None]:
    """Drop a collection of the organisation, with its points."""
    return Call("DELETE", _path(name), _nothing, repeatable=False)


def upsert(collection: str, id: str, vector: Vector, payload: Object | None = None) -> Call[None]:
    """Write a point; one of the same id is replaced."""
    point = {"id": id, "vector": vector, "payload": payload or {}}
    return Call("PUT", _path(collection, "points"), _nothing, _json({"points": [point]}))


def batch_upsert(collection: str, points: Sequence[Point | Object]) -> Call[int]:
    """Write up to 1,000 points, all or none; how many. Of two with one id the last is written."""
    return Call("PUT", _path(collection, "points"), _count, _json({"points": list(points)}))


def search(
    collection: str,
    vector: Vector,
    *,
    top_k: int = 10,
    filter: Object | None = None,
    score_threshold: float | None = None,
    with_payload: Shown = True,
    with_vectors: bool = False,
    preset: str | None = None,
    parameters: Object | None = None,
) -> Call[list[Hit]]:
    """The nearest points. ``preset`` is a filter of the collection's file, ``parameters`` are its own."""
    query = _query(top_k, filter, score_threshold, with_payload, with_vectors, preset, parameters)
    return Call("POST", _path(collection, "search"), _hits, _json({"vector": vector, **query}))


def text_search(
    collection: str,
    text: str,
    *,
    top_k: int = 10,
    filter: Object | None = None,
    score_threshold: float | None = None,
    with_payload: Shown = True,
    with_vectors: bool = False,
    preset: str | None = None,
    parameters: Object | None = None,
) -> Call[list[Hit]]:
    """The points nearest to a text, which the gateway embeds; else as :func:`search`."""
    query = _query(top_k, filter, score_threshold, with_payload, with_vectors, preset, parameters)
    return Call("POST", _path(collection, "search"), _hits, _json({"text": text, **query}))


def hybrid_search(
    collection: str,
    text: str,
    vector: Vector | None = None,
    *,
    text_field: str = "content",
    top_k: int = 10,
    filter: Object | None = None,
    score_threshold: float | None = None,
    with_payload: Shown = True,
    with_vectors: bool = False,
    preset: str | None = None,
    parameters: Object | None = None,
) -> Call[list[Hit]]:
    """Nearest by vector, and nearest among the points whose ``text_field`` has the words, fused by rank.

    Without a vector the text is embedded too; else as :func:`search`.
    """
    query = _query(top_k, filter, score_threshold, with_payload, with_vectors, preset, parameters)
    body = {"text": text, "text_field": text_field, **query}
    if vector is not None:
        body["vector"] = vector
    return Call("POST", _path(collection, "search", "hybrid"), _hits, _json(body))


def batch_search(collection: str, searches: Sequence[Search | Object]) -> Call[list[list[Hit]]]:
    """Up to 100 searches at once; their hits in the same order."""

    def read(answer: Any) -> list[list[Hit]]:
        return [_hits(result) for result in answer["results"]]

    return Call("POST", _path(collection, "search", "batch"), read, _json({"searches": list(searches)}))


def get(
    collection: str, ids: Sequence[str], *, with_payload: Shown = True, with_vectors: bool = False
) -> Call[list[StoredPoint]]:
    """Points by their ids, up to 1,000; those that are not there are left out."""
    body = {"ids": list(ids), "with_payload": with_payload, "with_vectors": with_vectors}
    return Call(
        "POST",
        _path(collection, "points", "get"),
        lambda answer: _POINTS.validate_python(answer["points"], extra="ignore"),
        _json(body),
    )


def scroll(
    collection: str,
    *,
    filter: Object | None = None,
    limit: int = 100,
    cursor: str | None = None,
    with_payload: Shown = True,
    with_vectors: bool = False,
) -> Call[Page]:
    """A page of points; its ``next`` is the cursor of the page after it, None on the last."""
    shown = {"with_payload": with_payload, "with_vectors": with_vectors}
    body = {"filter": filter, "limit": limit, "cursor": cursor, **shown}
    return Call("POST", _path(collection, "points", "scroll"), _model(Page), _json(body))


def delete(collection: str, ids: Sequence[str]) -> Call[int]:
    """Delete points by their ids, up to 1,000; how many there were, as the last try saw it."""
    return Call("POST", _path(collection, "points", "delete"), _count, _json({"ids": list(ids)}))


def delete_by_filter(collection: str, filter: Object) -> Call[int]:
    """Delete all points that meet a filter; how many there were, as the last try saw it."""
    return Call("POST", _path(collection, "points", "delete"), _count, _json({"filter": filter}))


def embed(collection: str, items: Sequence[EmbedItem | Object], *, idempotency_key: str | None = None) -> Call[str]:
    """A job that embeds up to 10,000 texts and writes the points; its id.

    The same items are the same job, so that it may be asked for again. A key of yours makes it so too, and the gateway
    refuses it (`ALREADY_EXISTS`) with other items.
    """
    path = _path(collection, "embed")
    return Call("POST", path, _job_id, _json({"items": list(items)}), _keyed(idempotency_key))


def mock(asset_id: str, segment_id: str, *, idempotency_key: str | None = None) -> Call[str]:
    """A job that writes a vector without meaning for a segment into `embeddings`; its id. Else as :func:`embed`."""
    body = _json({"asset_id": asset_id, "segment_id": segment_id})
    return Call("POST", "/vectors/mock", _job_id, body, _keyed(idempotency_key))


def job(job_id: str) -> Call[Job]:
    """A job as it is now."""
    return Call("GET", _url_path("jobs", job_id), _model(Job))


def cancel(job_id: str) -> Call[Job]:
    """End a job; what it has written stays, and one that has ended stays as it is."""
    return Call("DELETE", _url_path("jobs", job_id), _model(Job))


def dead_jobs(limit: int = 100) -> Call[list[Job]]:
    """Jobs that failed and are not tried again, the last first."""
    return Call(
        "GET",
        f"/v1/jobs/dead?limit={int(limit)}",
        lambda answer: _JOBS.validate_python(answer["jobs"], extra="ignore"),
    )


def replay(job_id: str) -> Call[Job]:
    """Try a job again that failed."""
    return Call("POST", _url_path("v1", "jobs", job_id, "replay"), _model(Job), repeatable=False)


def _url_path(*parts: str) -> str:
    """The path of these parts; raises :class:`ApiError` for a name that no address can have."""
    try:
        return url_path(*parts)
    except UserError as error:
        raise ApiError(ErrorKind.invalid_argument, str(error)) from None


def _path(collection: str, *rest: str) -> str:
    return _url_path("v1", "collections", collection, *rest)


def _query(
    top_k: int,
    filter: Object | None,
    score_threshold: float | None,
    with_payload: Shown,
    with_vectors: bool,
    preset: str | None,
    parameters: Object | None,
) -> dict[str, Any]:
    given = {
        "top_k": top_k,
        "filter": filter,
        "score_threshold": score_threshold,
        "with_payload": with_payload,
        "with_vectors": with_vectors,
        "preset": preset,
        "parameters": parameters,
    }
    return {name: value for name, value in given.items() if value is not None}


def _keyed(idempotency_key: str | None) -> dict[str, str]:
    return {} if idempotency_key is None else {IDEMPOTENCY_KEY: idempotency_key}


def _json(body: Object) -> bytes:
    try:
        return orjson.dumps(body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise ApiError(ErrorKind.invalid_argument, f"the request cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, np.ndarray):
        # Of another layout or width than orjson knows.
        return value.tolist()
    if isinstance(value, Sequence | Mapping):
        return dict(value) if isinstance(value, Mapping) else list(value)
    raise TypeError(f"{type(value).__name__} is no part of JSON")


Model = TypeVar("Model", bound=BaseModel)


def _model(kind: type[Model]) -> Callable[[Any], Model]:
    """A reader; what a later gateway adds is left out."""
    return lambda answer: kind.model_validate(answer, extra="ignore")


def _hits(answer: Any) -> list[Hit]:
    return _HITS.validate_python(answer["hits"], extra="ignore")


def _count(answer: Any) -> int:
    return _COUNT.validate_python(answer["count"])


def _job_id(answer: Any) -> str:
    return _ID.validate_python(answer["job_id"])


def _nothing(_: Any) -> None:
    return None
