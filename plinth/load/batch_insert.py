"""Insert the rows of a matrix as points of a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plinth.load.synthetic_vectors import Matrix
from plinth.qdrant.client import Qdrant, collection_path


def insert(
    client: Qdrant,
    collection: str,
    vectors: Matrix,
    payload: Callable[[int], dict[str, Any]],
    batch: int,
    identifier: Callable[[int], int | str] = int,
) -> None:
    """Insert one point per row, ``batch`` points per request, and wait for each; the default id is the row number."""
    path = f"{collection_path(collection)}/points?wait=true"
    for start in range(0, len(vectors), batch):
        rows = range(start, min(start + batch, len(vectors)))
        points = [{"id": identifier(row), "vector": vectors[row].tolist(), "payload": payload(row)} for row in rows]
        client.call("PUT", path, {"points": points})
