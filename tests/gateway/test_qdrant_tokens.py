"""The gateway asks Qdrant with tokens that open one collection, and with the whole key for what needs it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from plinth.gateway.config import QdrantServer
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.qdrant_tokens import LIFETIME_S, MARGIN_S, Access, QdrantTokens
from plinth.gateway.vector_store import VectorStore
from tests.answers import Answers, close, serve
from tests.conftest import KEY, Server
from tests.gateway.clients import PROTOCOLS, connect
from tests.gateway.conftest import Gateway

POINTS: dict[str, Any] = {"points": [], "next_page_offset": None, "count": 0, "status": "completed"}
COLLECTION = {"config": {"params": {"vectors": {"size": 2, "distance": "Dot"}}}}


@pytest.fixture
def keys_of() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that answers what the gateway asks for, and the keys that it was shown."""
    keys: list[str] = []

    class Qdrant(Answers):
        def answer(self) -> None:
            self.content()
            keys.append(self.headers["api-key"])
            result: Any = {"collections": []} if self.path == "/collections" else {**COLLECTION, **POINTS}
            if self.path.partition("?")[0].endswith("/points") and self.command == "POST":
                result = []
            self.reply(200, {"result": result})

        do_GET = do_PUT = do_POST = do_DELETE = answer

    server = serve(Qdrant)
    yield f"http://127.0.0.1:{server.server_address[1]}", keys
    close(server)


async def each_operation(store: VectorStore) -> list[tuple[str, str | None]]:
    """Every operation of the store, and what its key opens; None is the whole key."""
    await store.ready(20)
    await store.collections(20)
    await store.create("c", "org", {"size": 2, "distance": "Dot"}, 20)
    await store.describe("c", 20)
    await store.upsert("c", [], 20)
    await store.delete("c", ["1"], 20)
    await store.search("c", [{}], 20)
    await store.retrieve("c", ["1"], False, 20)
    await store.scroll("c", None, 1, None, False, 20)
    await store.count("c", None, 20)
    await store.drop("c", 20)
    await store.close()
    whole = [("ready", None), ("list", None), ("create", None)]
    reads = [(name, "r") for name in ("search", "retrieve", "scroll", "count")]
    return [*whole, ("describe", "r"), ("upsert", "prw"), ("delete", "prw"), *reads, ("drop", None)]


@pytest.mark.parametrize("collection_tokens", [True, False])
def test_each_request_opens_its_own_collection_and_no_more_than_it_needs(
    keys_of: tuple[str, list[str]], tmp_path: Path, collection_tokens: bool
) -> None:
    url, keys = keys_of
    (tmp_path / "key").write_text(KEY)
    server = QdrantServer(url=url, api_key_file=tmp_path / "key", collection_tokens=collection_tokens)
    operations = asyncio.run(each_operation(VectorStore(QdrantConnection(server))))
    assert len(keys) == len(operations)
    for key, (name, level) in zip(keys, operations, strict=True):
        if level is None or not collection_tokens:
            assert key == KEY, name
            continue
        claims = jwt.decode(key, KEY, ["HS256"])
        assert claims["access"] == [{"collection": "c", "access": level}], name
        assert claims["subject"] == "plinth-gateway"


def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    now = 1_000_000.0
    tokens = QdrantTokens(KEY, lambda: now)
    first = tokens.headers(Access("c", "r"))
    now += LIFETIME_S - MARGIN_S
    assert tokens.headers(Access("c", "r")) == first
    assert tokens.headers(Access("c", "prw")) != first
    assert tokens.headers(Access("d", "r")) != first
    now += 1
    second = tokens.headers(Access("c", "r"))
    assert second != first
    expires_at = jwt.decode(second["api-key"], KEY, ["HS256"], options={"verify_exp": False})["exp"]
    assert expires_at == int(now + LIFETIME_S)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_operation_is_done_with_them(gateway: Gateway, qdrant: Server, organisation: str, protocol: str) -> None:
    """On a server that checks them, in a collection of the organisation's and in shared ones, which aliases lead to."""
    assert gateway.config["qdrant"]["collection_tokens"]
    client = connect(gateway, protocol, organisation)
    client.create_collection("own", 4, "Cosine")
    for name, size in (("own", 4), ("trades", 4), ("playbooks", 384)):
        vector = [1.0] + [0.0] * (size - 1)
        client.batch_upsert(name, [{"id": "1", "vector": vector, "payload": {}}])
        assert [hit["id"] for hit in client.search(name, vector=vector)] == ["1"]
        assert [point["id"] for point in client.get(name, ["1"])] == ["1"]
        assert client.scroll(name)[1] is None
        assert client.get_collection(name)["points"] == 1
        assert client.batch_delete(name, ids=["1"]) == 1
    client.delete_collection("own")
    client.close()
