"""Send points in batches bounded by rows and by bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from plinth.migrate.checkpoint import Rejected
from plinth.migrate.digest import Point
from plinth.migrate.model import Key
from plinth.migrate.vectors import to_json
from plinth.qdrant.client import Qdrant, QdrantError, collection_path

# A quarter of what Qdrant accepts in one request by default (service.max_request_size_mb 32).
BATCH_BYTES = 8 * 2**20
# Statuses of a request that is refused because of its points, not because of its caller or its address.
OF_A_POINT = frozenset({400, 413, 422})
Encoded = tuple[Key, bytes]


def encode(point: Point) -> bytes:
    """Serialize a point for the REST API."""
    document = {"id": point.id, "vector": to_json(point.vectors), "payload": point.payload}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def batches(points: Sequence[Encoded], rows: int, most_bytes: int = BATCH_BYTES) -> Iterator[list[Encoded]]:
    """Yield points in order, in batches of at most so many and so many bytes; a larger point is sent alone."""
    batch: list[Encoded] = []
    size = 0
    for point in points:
        if batch and (len(batch) == rows or size + len(point[1]) > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += len(point[1])
    if batch:
        yield batch


def send(client: Qdrant, collection: str, batch: Sequence[Encoded]) -> list[Rejected]:
    """Write a batch and wait for it; the points that the server refuses are isolated by halving, and returned."""
    try:
        upsert(client, collection, [encoded for _, encoded in batch])
    except QdrantError as error:
        if error.status not in OF_A_POINT:
            raise
        if len(batch) == 1:
            return [Rejected(batch[0][0], f"Qdrant: {error}")]
        middle = len(batch) // 2
        return [
            *send(client, collection, batch[:middle]),
            *send(client, collection, batch[middle:]),
        ]
    return []


def upsert(client: Qdrant, collection: str, points: Sequence[bytes]) -> None:
    """Write encoded points in one request, and wait for it."""
    body = b'{"points":[' + b",".join(points) + b"]}"
    client.call("PUT", f"{collection_path(collection)}/points?wait=true", body)
