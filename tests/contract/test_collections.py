"""The shipped collections on a live server of each engine: made, read back, drifted, mended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from plinth.errors import UserError
from plinth.qdrant import server_state
from plinth.qdrant.apply import apply, converge
from plinth.qdrant.client import Qdrant, QdrantDenied, QdrantError, QdrantUnreachable
from plinth.qdrant.plan import plan
from plinth.qdrant.spec import CollectionSpec, load_specs
from tests.conftest import KEY, READ_ONLY_KEY, ROOT, Server, free_port


@pytest.fixture
def client(server: Server) -> Iterator[Qdrant]:
    with Qdrant(server.url, KEY) as made:
        yield made


@pytest.fixture
def specs(client: Qdrant) -> Iterator[list[CollectionSpec]]:
    """The shipped collections under names of this test's own."""
    mark = uuid.uuid4().hex[:6]
    shipped = load_specs(ROOT / "config" / "collections")
    named = [s.model_copy(update={"name": f"{mark}_{s.name}", "aliases": (f"{mark}_{s.aliases[0]}",)}) for s in shipped]
    yield named
    for spec in named:
        client.call("DELETE", f"/collections/{spec.name}")


@pytest.mark.requirement("S0-01")
@pytest.mark.requirement("S2-01")
@pytest.mark.requirement("S3-01")
def test_every_shipped_collection_is_taken_whole_drifts_and_is_mended(
    client: Qdrant, specs: list[CollectionSpec]
) -> None:
    apply(client, plan(specs, server_state.read(client)))
    assert plan(specs, server_state.read(client)).empty
    trades = next(spec for spec in specs if spec.name.endswith("trades_v1"))
    client.call(
        "PATCH", f"/collections/{trades.name}", {"hnsw_config": {"ef_construct": 64}, "quantization_config": "Disabled"}
    )
    client.call("DELETE", f"/collections/{trades.name}/index/symbol")
    client.call("POST", "/collections/aliases", {"actions": [{"delete_alias": {"alias_name": trades.aliases[0]}}]})
    drifted = plan(specs, server_state.read(client))
    assert {type(step).__name__ for step in drifted.steps} == {"UpdateCollection", "CreateIndex", "SwitchAliases"}
    apply(client, drifted)
    assert plan(specs, server_state.read(client)).empty


def test_a_new_size_is_refused_and_the_blue_green_way_works(client: Qdrant, specs: list[CollectionSpec]) -> None:
    apply(client, plan(specs, server_state.read(client)))
    blue = next(spec for spec in specs if spec.name.endswith("trades_v1"))
    wider = blue.model_copy(update={"vectors": blue.vectors.model_copy(update={"size": 1024})})
    with pytest.raises(UserError, match="trades_v2"):
        converge(client, wider)
    green = wider.model_copy(update={"name": blue.name.replace("_v1", "_v2"), "aliases": ()})
    converge(client, green)
    moved = [
        blue.model_copy(update={"aliases": ()}),
        green.model_copy(update={"aliases": blue.aliases}),
        *(spec for spec in specs if spec is not blue),
    ]
    apply(client, plan(moved, server_state.read(client)))
    assert client.aliases()[blue.aliases[0]] == green.name
    assert plan(moved, server_state.read(client)).empty
    client.call("DELETE", f"/collections/{green.name}")


def test_a_wrong_key_an_unreachable_server_and_a_key_that_may_not_are_sentences(server: Server) -> None:
    with Qdrant(server.url, "wrong-key") as client, pytest.raises(QdrantDenied) as denied:
        client.collections()
    assert "refuses the API key" in str(denied.value)
    assert "wrong-key" not in str(denied.value)
    with Qdrant(server.url, READ_ONLY_KEY) as client, pytest.raises(QdrantDenied):
        client.call("DELETE", "/collections/x")
    with (
        Qdrant(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(QdrantUnreachable, match="cannot be reached"),
    ):
        client.collections()
    with Qdrant(server.url, KEY) as client, pytest.raises(QdrantError, match="404"):
        client.call("GET", "/collections/nothing/points/1")
