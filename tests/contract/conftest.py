"""What the contract tests share: the official client, a collection with a tenant, and one that does not exist yet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient, models

from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, Server
from tests.contract.points import SIZE


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[QdrantClient]:
    made = QdrantClient(url=server.url, api_key=KEY, timeout=60)
    yield made
    made.close()


@pytest.fixture
def name(client: QdrantClient) -> Iterator[str]:
    """An empty collection with a tenant."""
    created = f"c_{uuid.uuid4().hex[:8]}"
    client.create_collection(created, vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.COSINE))
    client.create_payload_index(
        created, "t", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    )
    yield created
    client.delete_collection(created)


@pytest.fixture
def collection(server: Server) -> Iterator[str]:
    """A name for what a migration makes; removed afterwards."""
    name = f"m_{uuid.uuid4().hex[:8]}"
    yield name
    with Qdrant(server.url, KEY) as client:
        client.call("DELETE", f"/collections/{name}")
