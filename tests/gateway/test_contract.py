"""The service's contract, case by case in its document's order and under its names, through both protocols."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from plinth.gateway.caller import Scope
from plinth.gateway.tenancy import collection_name
from tests.conftest import KEY, Server
from tests.gateway.clients import PROTOCOLS, ApiError, VectorClient, connect
from tests.gateway.conftest import Gateway

SHARED = {"embeddings", "playbooks", "trades"}
Connect = Callable[..., VectorClient]


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol, with all tests of it in a row."""
    name: str = request.param
    return name


@pytest.fixture
def connected(gateway: Gateway, protocol: str) -> Iterator[Connect]:
    """A maker of clients of one protocol; the collections of their organisations are gone afterwards."""
    clients: list[VectorClient] = []
    organisations: set[str] = set()

    def of(organisation: str, user: str = "user", *scopes: Scope) -> VectorClient:
        clients.append(connect(gateway, protocol, organisation, user, *scopes))
        organisations.add(organisation)
        return clients[-1]

    yield of
    for organisation in organisations - {owner_of(protocol)}:
        clients.append(connect(gateway, protocol, organisation))
        for name in set(clients[-1].list_collections()) - SHARED:
            clients[-1].delete_collection(name)
    for client in clients:
        client.close()


def owner_of(protocol: str) -> str:
    return f"owner-{protocol}"


@pytest.fixture
def owner(protocol: str) -> str:
    """The organisation of `client`."""
    return owner_of(protocol)


@pytest.fixture(scope="module")
def documents(gateway: Gateway, protocol: str) -> Iterator[VectorClient]:
    client = connect(gateway, protocol, owner_of(protocol))
    client.create_collection("documents", 4, "Cosine")
    yield client
    client.delete_collection("documents")
    client.close()


@pytest.fixture
def client(documents: VectorClient) -> VectorClient:
    """A client whose organisation has an empty collection `documents` of four dimensions."""
    documents.batch_delete("documents", filter={})
    return documents


def refused(operation: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        operation()
    return caught.value


def outcome(operation: Callable[[], Any]) -> str:
    try:
        operation()
    except ApiError as error:
        return error.kind
    return "OK"


def document(n: int, **payload: Any) -> dict[str, Any]:
    """A point; the more, the further from [1, 0, 0, 0]."""
    return {"id": f"doc-{n}", "vector": [1.0, n / 10, 0.0, 0.0], "payload": {"n": n, **payload}}


def ids(points: list[dict[str, Any]]) -> list[str]:
    return [point["id"] for point in points]


def own(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload without the owner that the gateway writes into it."""
    return {key: value for key, value in payload.items() if key != "org_id"}


NEAREST = {"vector": [1.0, 0.0, 0.0, 0.0]}


@pytest.mark.requirement("S4-01")
def test_create_collection_br001_collection_prefixed_with_org_id(
    connected: Connect, organisation: str, qdrant: Server
) -> None:
    client = connected(organisation)
    client.create_collection("documents", 4, "Cosine")
    listed = httpx.get(f"{qdrant.url}/collections", headers={"api-key": KEY}).json()["result"]["collections"]
    assert {"name": organisation.replace("-", "_") + "_documents"} in listed
    assert client.get_collection("documents")["name"] == "documents"


@pytest.mark.requirement("S4-01")
def test_list_collections_br001_only_returns_org_collections(connected: Connect, organisation: str) -> None:
    client, other = connected(organisation), connected(f"{organisation}-2")
    client.create_collection("documents", 4, "Cosine")
    other.create_collection("secrets", 4, "Cosine")
    assert set(client.list_collections()) == {"documents"} | SHARED
    assert set(other.list_collections()) == {"secrets"} | SHARED


@pytest.mark.requirement("S4-01")
def test_search_br001_cannot_search_other_org_collections(
    client: VectorClient, connected: Connect, owner: str, organisation: str
) -> None:
    client.upsert("documents", document(1))
    other = connected(organisation)
    physical = collection_name(owner, "documents")
    for name in ("documents", physical, f"../{owner}/documents"):
        operations: list[Callable[[], Any]] = [
            lambda name=name: other.search(name, **NEAREST),
            lambda name=name: other.get(name, ["doc-1"]),
            lambda name=name: other.scroll(name),
            lambda name=name: other.upsert(name, document(2)),
            lambda name=name: other.batch_delete(name, ids=["doc-1"]),
            lambda name=name: other.get_collection(name),
            lambda name=name: other.delete_collection(name),
        ]
        for operation in operations:
            error = refused(operation)
            assert error.kind in {"NOT_FOUND", "INVALID_ARGUMENT"}
            assert physical not in error.message
    assert ids(client.search("documents", **NEAREST)) == ["doc-1"]


@pytest.mark.requirement("S4-01")
def test_a_shared_collection_shows_each_organisation_its_own_points(connected: Connect, organisation: str) -> None:
    client, other = connected(organisation), connected(f"{organisation}-2")
    vector = [1.0] + [0.0] * 383
    client.upsert("embeddings", {"id": "same", "vector": vector, "payload": {"of": "first"}})
    other.upsert("embeddings", {"id": "same", "vector": vector, "payload": {"of": "second"}})
    for asked, of in ((client, "first"), (other, "second")):
        assert [own(hit["payload"]) for hit in asked.search("embeddings", vector=vector)] == [{"of": of}]
        assert [own(point["payload"]) for point in asked.get("embeddings", ["same"])] == [{"of": of}]
        assert asked.get_collection("embeddings")["points"] == 1
    assert other.batch_delete("embeddings", filter={}) == 1
    assert ids(client.scroll("embeddings")[0]) == ["same"]
    foreign = {"id": "mine", "vector": vector, "payload": {"org_id": f"{organisation}-2"}}
    error = refused(lambda: client.upsert("embeddings", foreign))
    assert error.kind == "PERMISSION_DENIED"


@pytest.mark.requirement("S4-01")
@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.read, {"search": "OK"}),
        (Scope.write, {"upsert": "OK"}),
        (Scope.admin, {"create_collection": "ALREADY_EXISTS"}),
    ],
)
def test_a_token_allows_what_its_scopes_say(
    client: VectorClient, connected: Connect, owner: str, scope: Scope, allowed: dict[str, str]
) -> None:
    narrow = connected(owner, "user", scope)
    operations: dict[str, Callable[[], Any]] = {
        "search": lambda: narrow.search("documents", **NEAREST),
        "upsert": lambda: narrow.upsert("documents", document(1)),
        "create_collection": lambda: narrow.create_collection("documents", 4, "Dot"),
    }
    outcomes = {name: outcome(operation) for name, operation in operations.items()}
    assert outcomes == dict.fromkeys(operations, "PERMISSION_DENIED") | allowed


@pytest.mark.requirement("S4-02")
@pytest.mark.parametrize(
    ("dimension", "distance", "field"), [(None, "Cosine", "dimension"), (0, "Dot", "dimension"), (4, None, "distance")]
)
def test_create_collection_br002_requires_dimension_and_metric(
    connected: Connect, organisation: str, dimension: int | None, distance: str | None, field: str
) -> None:
    error = refused(lambda: connected(organisation).create_collection("documents", dimension, distance))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", (field,))
    assert error.message.startswith(f"{field}: ")


@pytest.mark.requirement("S4-02")
@pytest.mark.parametrize(
    ("distance", "best"), [("Cosine", ["near", "far"]), ("Euclidean", ["near", "far"]), ("Dot", ["far", "near"])]
)
def test_create_collection_br002_supports_all_distance_metrics(
    connected: Connect, organisation: str, distance: str, best: list[str]
) -> None:
    client = connected(organisation)
    created = client.create_collection("documents", 2, distance)
    assert created == {"name": "documents", "dimension": 2, "distance": distance, "points": 0, "shared": False}
    client.batch_upsert("documents", [{"id": "near", "vector": [1, 0.1]}, {"id": "far", "vector": [9, 5]}])
    assert ids(client.search("documents", vector=[1, 0])) == best
    assert client.get_collection("documents") == {**created, "points": 2}


@pytest.mark.requirement("S4-03")
def test_upsert_br003_stores_vector_with_payload(client: VectorClient) -> None:
    payload = {"title": "Document Title", "source": "web", "timestamp": "2025-01-01T00:00:00Z"}
    client.upsert("documents", {"id": "doc-123", "vector": [0.0, 1.0, 0.0, 0.0], "payload": payload})
    (point,) = client.get("documents", ["doc-123"], with_vectors=True)
    assert (point["id"], own(point["payload"]), point["vector"]) == ("doc-123", payload, [0.0, 1.0, 0.0, 0.0])


@pytest.mark.requirement("S4-03")
def test_upsert_br003_overwrites_existing_vector(client: VectorClient) -> None:
    client.upsert("documents", document(1, old=True))
    client.upsert("documents", {"id": "doc-1", "vector": [0, 0, 0, 1], "payload": {"new": True}})
    (point,) = client.get("documents", ["doc-1"], with_vectors=True)
    assert (own(point["payload"]), point["vector"]) == ({"new": True}, [0, 0, 0, 1])
    assert client.get_collection("documents")["points"] == 1


@pytest.mark.requirement("S4-03")
def test_upsert_br003_supports_nested_payload(client: VectorClient) -> None:
    payload = {
        "meta": {"tags": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2.5}], "empty": {}, "none": None},
        "flags": [True, False, []],
        "größe": "naïve ☕",
        "count": 2024,
        "large": 2**53 - 1,
    }
    client.upsert("documents", {"id": "doc-1", "vector": [1, 0, 0, 0], "payload": payload})
    (hit,) = client.search("documents", **NEAREST)
    assert own(hit["payload"]) == payload
    nested = {"nested": [{"key": "meta.tags", "filter": {"match": {"name": "b"}, "range": {"weight": {"gt": 2}}}}]}
    assert ids(client.search("documents", **NEAREST, filter=nested)) == ["doc-1"]
    # What has no fraction is an integer, whichever protocol wrote it.
    assert ids(client.search("documents", **NEAREST, filter={"match": {"count": 2024}})) == ["doc-1"]
    (part,) = client.get("documents", ["doc-1"], with_payload=["meta.none", "flags"])
    assert part["payload"] == {"meta": {"none": None}, "flags": [True, False, []]}


@pytest.mark.requirement("S4-04")
def test_search_br004_returns_top_k_results(client: VectorClient) -> None:
    client.batch_upsert("documents", [document(n) for n in range(12)])
    assert len(client.search("documents", **NEAREST)) == 10
    assert ids(client.search("documents", **NEAREST, top_k=3)) == ["doc-0", "doc-1", "doc-2"]
    bare = client.search("documents", **NEAREST, top_k=1, with_payload=False)[0]
    assert set(bare) == {"id", "score"}
    full = client.search("documents", **NEAREST, top_k=1, with_vectors=True)[0]
    assert set(full) == {"id", "score", "payload", "vector"}


@pytest.mark.requirement("S4-04")
def test_search_br004_results_sorted_by_score(client: VectorClient) -> None:
    client.batch_upsert("documents", [document(n) for n in (7, 2, 9, 0, 4)])
    hits = client.search("documents", **NEAREST)
    assert ids(hits) == ["doc-0", "doc-2", "doc-4", "doc-7", "doc-9"]
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    both = client.batch_search("documents", [NEAREST, {"vector": [0, 1, 0, 0], "top_k": 1}])
    assert [ids(result) for result in both] == [ids(hits), ["doc-9"]]


@pytest.mark.requirement("S4-04")
def test_search_br004_respects_score_threshold(client: VectorClient) -> None:
    client.batch_upsert("documents", [document(n) for n in range(10)])
    hits = client.search("documents", **NEAREST, score_threshold=0.9)
    assert 0 < len(hits) < 10
    assert all(hit["score"] >= 0.9 for hit in hits)


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "one of several values": ({"match": {"n": [1, 3]}}, [1, 3]),
    "booleans and texts": ({"match": {"source": ["web", "feed"], "even": True}}, [0, 2, 4]),
    "dates": ({"range": {"at": {"gte": "2025-01-02", "lt": "2025-01-04T00:00:00Z"}}}, [2, 3]),
    "any": ({"should": [{"match": {"n": 0}}, {"range": {"n": {"gte": 4}}}]}, [0, 4]),
    "none": ({"must_not": [{"match": {"even": True}}]}, [1, 3]),
    "absent": ({"is_empty": ["gone"]}, [0, 1, 2, 3, 4]),
}


def filtered(client: VectorClient) -> None:
    client.batch_upsert(
        "documents",
        [
            document(n, source="web" if n < 3 else "feed", even=n % 2 == 0, at=f"2025-01-0{n or 1}T12:00:00Z")
            for n in range(5)
        ],
    )


def numbers(hits: list[dict[str, Any]]) -> list[int]:
    return [int(hit["id"].removeprefix("doc-")) for hit in hits]


@pytest.mark.requirement("S4-05")
def test_search_br005_filters_by_payload_match(client: VectorClient) -> None:
    filtered(client)
    assert numbers(client.search("documents", **NEAREST, filter={"match": {"source": "web"}})) == [0, 1, 2]
    for condition, expected in FILTERS.values():
        assert numbers(client.search("documents", **NEAREST, filter=condition)) == expected, condition


@pytest.mark.requirement("S4-05")
def test_search_br005_filters_by_numeric_range(client: VectorClient) -> None:
    filtered(client)
    assert numbers(client.search("documents", **NEAREST, filter={"range": {"n": {"gt": 1, "lte": 3}}})) == [2, 3]
    assert numbers(client.search("documents", **NEAREST, filter={"range": {"n": {"lt": 0.5}}})) == [0]


@pytest.mark.requirement("S4-05")
def test_search_br005_combines_multiple_filters(client: VectorClient) -> None:
    filtered(client)
    condition = {
        "must": [{"match": {"source": "web"}}, {"range": {"n": {"gte": 1}}}],
        "must_not": [{"match": {"n": 2}}],
    }
    assert numbers(client.search("documents", **NEAREST, filter=condition)) == [1]
    assert numbers(client.scroll("documents", filter=condition)[0]) == [1]


@pytest.mark.requirement("S4-06")
def test_batch_upsert_br006_inserts_multiple_vectors(client: VectorClient) -> None:
    assert client.batch_upsert("documents", [document(n) for n in range(100)]) == 100
    assert client.get_collection("documents")["points"] == 100
    seen, cursor = [], None
    while True:
        points, cursor = client.scroll("documents", limit=40, **({"cursor": cursor} if cursor else {}))
        seen += ids(points)
        if cursor is None:
            break
    assert sorted(seen) == sorted(f"doc-{n}" for n in range(100))


@pytest.mark.requirement("S4-06")
def test_batch_delete_br006_deletes_multiple_vectors(client: VectorClient) -> None:
    client.batch_upsert("documents", [document(n) for n in range(10)])
    assert client.batch_delete("documents", ids=["doc-0", "doc-1", "doc-99"]) == 2
    assert client.batch_delete("documents", filter={"range": {"n": {"gte": 6}}}) == 4
    client.delete("documents", "doc-2")
    client.delete("documents", "doc-2")
    assert numbers(client.search("documents", **NEAREST)) == [3, 4, 5]
    for selection in ({}, {"ids": ["doc-3"], "filter": {}}):
        assert refused(lambda selection=selection: client.batch_delete("documents", **selection)).kind == (
            "INVALID_ARGUMENT"
        )
    assert client.get_collection("documents")["points"] == 3


@pytest.mark.requirement("S4-06")
def test_batch_upsert_br006_partial_failure_returns_error(client: VectorClient) -> None:
    points = [document(0), {"id": "doc-1", "vector": [1, 0]}, document(2)]
    error = refused(lambda: client.batch_upsert("documents", points))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", ("points.1.vector",))
    assert client.get_collection("documents")["points"] == 0
    assert refused(lambda: client.batch_upsert("documents", [])).fields == ("points",)
    assert refused(lambda: client.batch_upsert("documents", [document(0)] * 1001)).fields == ("points",)


@pytest.mark.requirement("S4-07")
def test_get_br007_returns_vector_by_id(client: VectorClient) -> None:
    client.batch_upsert("documents", [document(n) for n in range(3)])
    assert ids(client.get("documents", ["doc-2", "doc-0"])) == ["doc-2", "doc-0"]
    bare = client.get("documents", ["doc-1"])[0]
    assert set(bare) == {"id", "payload"}


@pytest.mark.requirement("S4-07")
def test_get_br007_omits_non_existent_ids(client: VectorClient) -> None:
    client.upsert("documents", document(1))
    assert ids(client.get("documents", ["doc-0", "doc-1", "ünbekannt", "42"])) == ["doc-1"]
    assert client.get("documents", ["doc-0"]) == []


def audited(gateway: Gateway, organisation: str) -> list[dict[str, Any]]:
    lines = map(json.loads, gateway.audit.read_text().splitlines())
    return [line for line in lines if line["org_id"] == organisation]


AUDIT_KEYS = {
    "time",
    "operation",
    "org_id",
    "user_id",
    "collection",
    "count",
    "outcome",
    "duration_ms",
    "request_id",
    "protocol",
}


@pytest.mark.requirement("S4-08")
def test_upsert_br008_audit_log_recorded(
    client: VectorClient, connected: Connect, gateway: Gateway, owner: str
) -> None:
    secret = {"id": "secret-id", "vector": [0.123456, 0, 0, 0], "payload": {"secret-key": "secret-value"}}
    connected(owner, "mia").batch_upsert("documents", [secret, document(1)])
    line = audited(gateway, owner)[-1]
    assert set(line) == AUDIT_KEYS
    told = ("operation", "user_id", "collection", "count", "outcome", "protocol")
    assert [line[key] for key in told] == ["upsert", "mia", "documents", 2, "OK", client.protocol]
    written = gateway.audit.read_text() + gateway.log()
    for hidden in ("secret-id", "0.123456", "secret-key", "secret-value", "Bearer"):
        assert hidden not in written


@pytest.mark.requirement("S4-08")
def test_search_br008_audit_log_recorded(client: VectorClient, gateway: Gateway, owner: str) -> None:
    client.search("documents", **NEAREST)
    refused(lambda: client.search("documents", vector=[]))
    refused(lambda: client.search("missing", **NEAREST))
    lines = audited(gateway, owner)[-3:]
    assert [line["outcome"] for line in lines] == ["OK", "INVALID_ARGUMENT", "NOT_FOUND"]
    assert [line["collection"] for line in lines] == ["documents", "documents", "missing"]
    assert len({line["request_id"] for line in lines}) == 3


@pytest.mark.requirement("S4-09")
def test_upsert_ec001_wrong_dimension_returns_error(client: VectorClient) -> None:
    for vector in ([1.0], [1.0] * 5):
        error = refused(lambda vector=vector: client.upsert("documents", {"id": "a", "vector": vector}))
        assert error.kind == "INVALID_ARGUMENT"
        assert "vector dimension mismatch" in error.message
        assert error.fields in {("point.vector",), ("points.0.vector",)}
    assert "vector dimension mismatch" in refused(lambda: client.search("documents", vector=[1.0])).message


@pytest.mark.requirement("S4-09")
def test_search_ec002_non_existent_collection_returns_not_found(client: VectorClient) -> None:
    operations: list[Callable[[], Any]] = [
        lambda: client.search("missing", **NEAREST),
        lambda: client.batch_search("missing", [NEAREST]),
        lambda: client.hybrid_search("missing", **NEAREST, text="words"),
        lambda: client.get("missing", ["a"]),
        lambda: client.scroll("missing"),
        lambda: client.upsert("missing", document(1)),
        lambda: client.delete("missing", "a"),
        lambda: client.batch_delete("missing", filter={}),
        lambda: client.get_collection("missing"),
        lambda: client.delete_collection("missing"),
    ]
    for operation in operations:
        error = refused(operation)
        assert (error.kind, error.message) == ("NOT_FOUND", "collection not found")


@pytest.mark.requirement("S4-09")
def test_create_collection_ec003_duplicate_returns_already_exists(connected: Connect, organisation: str) -> None:
    client = connected(organisation)
    client.create_collection("documents", 4, "Cosine")
    for name in ("documents", "embeddings"):
        error = refused(lambda name=name: client.create_collection(name, 8, "Dot"))
        assert (error.kind, error.message) == ("ALREADY_EXISTS", "collection already exists")
    assert client.get_collection("documents")["dimension"] == 4
    client.delete_collection("documents")
    assert client.create_collection("documents", 8, "Dot")["dimension"] == 8
    assert client.get_collection("documents")["dimension"] == 8


@pytest.mark.requirement("S4-09")
def test_search_ec004_empty_vector_returns_error(client: VectorClient) -> None:
    for query in ({"vector": []}, {}):
        error = refused(lambda query=query: client.search("documents", **query))
        assert error.kind == "INVALID_ARGUMENT"
        assert "vector" in error.message


@pytest.mark.requirement("S4-09")
@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ({"range": {"n": {}}}, "filter.range.n"),
        ({"range": {"n": {"gte": 1, "lt": "2025-01-01"}}}, "filter.range.n"),
        ({"range": {"n": {"gte": "yesterday"}}}, "filter.range.n.gte"),
        ({"match": {"a b": 1}}, "filter.match.a b"),
        ({"must": [{"match": {"n": []}}]}, "filter.must.0.match.n"),
        ({"is_empty": [""]}, "filter.is_empty.0"),
    ],
)
def test_search_ec005_invalid_filter_returns_error(client: VectorClient, condition: dict[str, Any], field: str) -> None:
    error = refused(lambda: client.search("documents", **NEAREST, filter=condition))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", (field,))
    assert error.message.startswith("invalid filter syntax: ")


@pytest.mark.requirement("S4-09")
def test_search_ec005_a_filter_has_bounds(client: VectorClient) -> None:
    deep: dict[str, Any] = {"match": {"n": 1}}
    for _ in range(8):
        deep = {"must": [deep]}
    wide = {"match": {f"f{n}": 1 for n in range(257)}}
    for condition in (deep, wide):
        error = refused(lambda condition=condition: client.search("documents", **NEAREST, filter=condition))
        assert error.kind == "INVALID_ARGUMENT"
        assert "invalid filter syntax" in error.message


@pytest.mark.requirement("S4-09")
def test_search_ec006_top_k_too_large_returns_error(client: VectorClient) -> None:
    client.upsert("documents", document(1))
    assert len(client.search("documents", **NEAREST, top_k=9999)) == 1
    for top_k in (0, 10_000, 2**31):
        error = refused(lambda top_k=top_k: client.search("documents", **NEAREST, top_k=top_k))
        assert error.kind == "INVALID_ARGUMENT"
        assert "top_k" in error.message


@pytest.mark.requirement("S4-09")
def test_search_ec007_qdrant_unavailable_returns_error(
    without_qdrant: Gateway, protocol: str, organisation: str
) -> None:
    client = connect(without_qdrant, protocol, organisation)
    operations: list[Callable[[], Any]] = [
        lambda: client.search("documents", **NEAREST),
        lambda: client.upsert("documents", document(1)),
        lambda: client.create_collection("documents", 4, "Dot"),
        client.list_collections,
    ]
    for operation in operations:
        error = refused(operation)
        assert (error.kind, error.message) == ("UNAVAILABLE", "qdrant unavailable")
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0
    client.close()


@pytest.mark.requirement("S4-09")
def test_batch_upsert_ec008_duplicate_id_last_wins(client: VectorClient) -> None:
    points = [document(1, version="first"), document(2), document(1, version="last")]
    assert client.batch_upsert("documents", points) == 2
    (point,) = client.get("documents", ["doc-1"])
    assert point["payload"]["version"] == "last"


@pytest.mark.requirement("S4-10")
def test_search_er001_timeout_is_the_callers_deadline(
    with_silent_qdrant: Gateway, protocol: str, organisation: str
) -> None:
    client = connect(with_silent_qdrant, protocol, organisation)
    began = time.monotonic()
    error = refused(lambda: client.search("documents", **NEAREST))
    assert (error.kind, error.message) == ("DEADLINE_EXCEEDED", "operation timeout")
    assert time.monotonic() - began < 20
    client.close()


@pytest.mark.requirement("S3-03")
def test_hybrid_search_fuses_vector_and_words(connected: Connect, organisation: str) -> None:
    client = connected(organisation)
    axes = [[float(at == axis) for at in range(384)] for axis in range(3)]
    client.batch_upsert(
        "embeddings",
        [
            {"id": "both", "vector": axes[0], "payload": {"content": "a manual of vector search"}},
            {"id": "near", "vector": [0.99, 0.1] + [0.0] * 382, "payload": {"content": "cooking for two"}},
            {"id": "words", "vector": axes[2], "payload": {"content": "vector search at scale"}},
        ],
    )
    hits = client.hybrid_search("embeddings", vector=axes[0], text="vector search", top_k=3)
    assert ids(hits)[0] == "both"
    assert set(ids(hits)) == {"both", "near", "words"}
    error = refused(lambda: client.hybrid_search("embeddings", vector=axes[0]))
    assert error.kind == "INVALID_ARGUMENT"


@pytest.mark.requirement("S2-04")
def test_a_preset_searches_what_is_the_users_own(connected: Connect, organisation: str) -> None:
    mia, tom = connected(organisation, "mia"), connected(organisation, "tom")
    mia.batch_upsert(
        "trades",
        [
            {"id": "1", "vector": [1, 0, 0, 0], "payload": {"symbol": "ACME", "closed_at": "2025-01-01T00:00:00Z"}},
            {"id": "2", "vector": [1, 0, 0, 1], "payload": {"symbol": "ACME", "closed_at": "2025-06-01T00:00:00Z"}},
            {"id": "3", "vector": [1, 0, 1, 1], "payload": {"symbol": "OTHER", "closed_at": "2025-06-01T00:00:00Z"}},
        ],
    )
    preset = {**NEAREST, "preset": "closed"}
    assert ids(mia.search("trades", **preset)) == ["1", "2", "3"]
    assert ids(mia.search("trades", **preset, parameters={"symbol": "ACME", "since": "2025-03-01"})) == ["2"]
    assert tom.search("trades", **preset) == []
    error = refused(lambda: mia.search("trades", **preset, parameters={"user": "tom"}))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", ("parameters.user",))
