"""Points that the contract tests write and ask for."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

SIZE = 16


def vectors(count: int, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).normal(size=(count, SIZE)).tolist()


def fill(client: QdrantClient, name: str, count: int = 30) -> list[list[float]]:
    rows = vectors(count)
    points = [
        models.PointStruct(
            id=i, vector=row, payload={"t": f"t{i % 3}", "n": i, "even": i % 2 == 0, "nested": {"deep": [i]}}
        )
        for i, row in enumerate(rows)
    ]
    client.upsert(name, points, wait=True)
    return rows


def within(tenant: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="t", match=models.MatchValue(value=tenant))])


def refused(status: int) -> pytest.RaisesExc[UnexpectedResponse]:
    return pytest.raises(UnexpectedResponse, match=str(status))
