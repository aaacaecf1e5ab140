"""The search that applications use, on a live server of each engine: stable ids, tenants that cannot be left out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.errors import UserError
from plinth.qdrant.client import Qdrant
from plinth.qdrant.search import Between, ensure_collection, hybrid_search, mock_vector, point_id_for, search, upsert
from plinth.qdrant.spec import CollectionSpec, load_specs
from tests.conftest import KEY, ROOT, Server

SHIPPED = {alias: spec for spec in load_specs(ROOT / "config" / "collections") for alias in spec.aliases}


@pytest.fixture
def client(server: Server) -> Iterator[Qdrant]:
    with Qdrant(server.url, KEY) as made:
        yield made


def own(client: Qdrant, name: str) -> CollectionSpec:
    spec = SHIPPED[name].model_copy(update={"name": f"{name}_{uuid.uuid4().hex[:6]}", "aliases": ()})
    ensure_collection(client, spec)
    return spec


five = st.tuples(*(st.text(max_size=4) for _ in range(5)))


@pytest.mark.requirement("S0-01")
@given(five, five)
def test_a_points_id_is_the_same_for_the_same_five_and_another_for_any_other(
    a: tuple[str, ...], b: tuple[str, ...]
) -> None:
    assert (point_id_for(*a) == point_id_for(*b)) == (a == b)
    assert uuid.UUID(point_id_for(*a)).version == 5


@pytest.mark.requirement("S0-01")
@pytest.mark.requirement("S0-02")
def test_ids_and_mock_vectors_are_the_same_on_every_machine() -> None:
    assert point_id_for("org", "asset", "segment", "mock", "v1") == "5c6c1b63-85ff-5f7b-b896-85653b725d8f"
    vector = mock_vector("my-doc", "chunk-0", 384)
    assert vector[:3] == pytest.approx([-0.07678906, 0.08173432, 0.0653382], abs=1e-7)
    assert sum(value * value for value in vector) == pytest.approx(1)
    assert vector != mock_vector("my-doc", "chunk-1", 384)


@pytest.mark.requirement("S0-01")
@pytest.mark.requirement("S1-08")
def test_a_search_stays_in_its_tenant_and_cannot_go_without_one(client: Qdrant) -> None:
    spec = own(client, "embeddings")
    points = [
        {
            "id": point_id_for(org, f"a{i}", "s", "mock", "v1"),
            "vector": mock_vector(f"a{i}", "s", 384),
            "payload": {"org_id": org, "asset_id": f"a{i}"},
        }
        for org in ("one", "two")
        for i in range(150)
    ]
    assert upsert(client, spec, points) == 300
    found = search(client, spec, mock_vector("a7", "s", 384), tenant="two", limit=5)
    assert found[0].payload == {"org_id": "two", "asset_id": "a7"}
    assert {hit.payload["org_id"] for hit in found} == {"two"}
    assert search(client, spec, mock_vector("a7", "s", 384), tenant="two", where={"asset_id": ["a1", "a2"]}, limit=5)[
        0
    ].payload["asset_id"] in ("a1", "a2")
    with pytest.raises(UserError, match="within one 'org_id' only; name the tenant"):
        search(client, spec, mock_vector("a7", "s", 384))
    with pytest.raises(UserError, match="has no 'org_id' in its payload"):
        upsert(client, spec, [{"id": 1, "vector": mock_vector("a", "s", 384), "payload": {}}])


@pytest.mark.requirement("S2-04")
def test_trades_are_found_by_user_symbol_dates_and_score(client: Qdrant) -> None:
    spec = own(client, "trades")
    points = [
        {
            "id": i,
            "vector": mock_vector(f"t{i}", "", 768),
            "payload": {"user_id": "u", "symbol": "NQ" if i % 2 else "ES", "closed_at": f"2025-0{i + 1}-01T00:00:00Z"},
        }
        for i in range(8)
    ]
    upsert(client, spec, points)
    vector = mock_vector("t3", "", 768)
    spring = Between(datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))
    assert {hit.id for hit in search(client, spec, vector, tenant="u", where={"closed_at": spring})} == {2, 3, 4}
    assert {
        hit.id for hit in search(client, spec, vector, tenant="u", where={"closed_at": spring, "symbol": "NQ"})
    } == {3}
    assert [hit.id for hit in search(client, spec, vector, tenant="u", score_threshold=0.9)] == [3]
    assert search(client, spec, vector, tenant="another") == []


@pytest.mark.requirement("S2-01")
def test_playbooks_are_searched_by_user_or_among_the_public_ones_and_not_otherwise(client: Qdrant) -> None:
    spec = own(client, "playbooks")
    points = [
        {
            "id": i,
            "vector": mock_vector(f"p{i}", "", 768),
            "payload": {"user_id": f"u{i % 3}", "is_public": i % 2 == 0},
        }
        for i in range(30)
    ]
    upsert(client, spec, points)
    vector = mock_vector("p4", "", 768)
    assert [hit.id for hit in search(client, spec, vector, where={"is_public": True}, limit=1)] == [4]
    assert [hit.id for hit in search(client, spec, vector, where={"user_id": "u1"}, limit=1)] == [4]
    assert 4 not in [hit.id for hit in search(client, spec, vector, where={"user_id": "u2"}, limit=30)]
    for where in (None, {"name": "x"}, {"user_id": ["u1", "u2"]}):
        with pytest.raises(UserError, match="one value of user_id or is_public"):
            search(client, spec, vector, where=where)


@pytest.mark.requirement("S3-03")
def test_words_and_vectors_are_searched_together(client: Qdrant) -> None:
    spec = own(client, "crawled_pages")
    texts = ["Rust ownership explained", "Python typing in practice", "Gardening in spring"]
    points = [
        {"id": i, "vector": mock_vector(text, "", 1536), "payload": {"source_id": "s", "content": text}}
        for i, text in enumerate(texts)
    ]
    upsert(client, spec, points)
    found = hybrid_search(client, spec, mock_vector(texts[0], "", 1536), "gardening", limit=3)
    assert {0, 2} <= {hit.id for hit in found}
    with pytest.raises(UserError, match="'title' has no text index"):
        hybrid_search(client, spec, mock_vector("x", "", 1536), "x", field="title")
    with pytest.raises(UserError, match="has no tenant field"):
        search(client, spec, mock_vector("x", "", 1536), tenant="s")
