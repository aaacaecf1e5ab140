"""Points: what an application may expect of either engine, through the official client. The same tests pass on both."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from tests.contract.points import SIZE, fill, refused, vectors, within

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@pytest.mark.requirement("S4-04")
def test_a_search_returns_the_nearest_in_order_with_what_was_asked_for(client: QdrantClient, name: str) -> None:
    rows = fill(client, name)
    found = client.query_points(name, query=rows[7], limit=5, with_payload=True, with_vectors=True).points
    assert found[0].id == 7
    assert [point.score for point in found] == sorted((point.score for point in found), reverse=True)
    assert found[0].payload == {"t": "t1", "n": 7, "even": False, "nested": {"deep": [7]}}
    np.testing.assert_allclose(found[0].vector, np.array(rows[7]) / np.linalg.norm(rows[7]), atol=1e-5)
    bare = client.query_points(name, query=rows[7], limit=1, with_payload=False).points[0]
    assert (bare.payload, bare.vector) == (None, None)
    some = client.query_points(name, query=rows[7], limit=1, with_payload=["n"]).points[0]
    assert some.payload == {"n": 7}
    assert not client.query_points(name, query=rows[7], score_threshold=1.1).points


@pytest.mark.requirement("S4-05")
def test_filters_keep_to_their_conditions(client: QdrantClient, name: str) -> None:
    fill(client, name)
    condition, match = models.FieldCondition, models.MatchValue
    cases = {
        "value": (
            models.Filter(must=[condition(key="t", match=match(value="t1"))]),
            {i for i in range(30) if i % 3 == 1},
        ),
        "bool": (models.Filter(must=[condition(key="even", match=match(value=True))]), set(range(0, 30, 2))),
        "integer": (models.Filter(must=[condition(key="n", match=match(value=4))]), {4}),
        "range": (models.Filter(must=[condition(key="n", range=models.Range(gte=10, lt=12))]), {10, 11}),
        "any": (models.Filter(must=[condition(key="n", match=models.MatchAny(any=[3, 5]))]), {3, 5}),
        "should": (
            models.Filter(should=[condition(key="n", match=match(value=i)) for i in (1, 2)]),
            {1, 2},
        ),
        "must not": (models.Filter(must_not=[condition(key="n", range=models.Range(gte=2))]), {0, 1}),
        "ids": (models.Filter(must=[models.HasIdCondition(has_id=[3, 99])]), {3}),
        "nested": (models.Filter(must=[condition(key="nested.deep", match=match(value=6))]), {6}),
    }
    for kind, (wanted, ids) in cases.items():
        assert {point.id for point in client.scroll(name, scroll_filter=wanted, limit=100)[0]} == ids, kind
        assert client.count(name, count_filter=wanted).count == len(ids), kind


@pytest.mark.requirement("S2-04")
def test_dates_are_compared_as_dates(client: QdrantClient, name: str) -> None:
    client.create_payload_index(name, "at", models.PayloadSchemaType.DATETIME)
    for i, day in enumerate(("2025-01-01T00:00:00Z", "2025-06-01T12:00:00+02:00", "2026-01-01T00:00:00Z")):
        client.upsert(name, [models.PointStruct(id=i, vector=vectors(1)[0], payload={"at": day})], wait=True)
    since = models.FieldCondition(
        key="at", range=models.DatetimeRange(gte="2025-06-01T00:00:00Z", lt="2025-12-31T00:00:00Z")
    )
    assert [point.id for point in client.scroll(name, scroll_filter=models.Filter(must=[since]))[0]] == [1]


@pytest.mark.requirement("S4-03")
@pytest.mark.requirement("S4-09")
def test_an_upsert_overwrites_and_the_last_of_two_wins(client: QdrantClient, name: str) -> None:
    first, second = vectors(2)
    client.upsert(name, [models.PointStruct(id=1, vector=first, payload={"a": 1, "b": 2})], wait=True)
    client.upsert(name, [models.PointStruct(id=1, vector=second, payload={"a": 3})], wait=True)
    assert client.retrieve(name, [1])[0].payload == {"a": 3}
    twice = [models.PointStruct(id=2, vector=first, payload={"k": k}) for k in ("first", "last")]
    client.upsert(name, twice, wait=True)
    assert client.retrieve(name, [2])[0].payload == {"k": "last"}
    assert client.count(name).count == 2


@pytest.mark.requirement("S4-06")
def test_a_batch_with_one_wrong_vector_is_refused_whole(client: QdrantClient, name: str) -> None:
    good, wrong = vectors(1)[0], [1.0] * (SIZE + 1)
    points = [models.PointStruct(id=1, vector=good), models.PointStruct(id=2, vector=wrong)]
    with refused(400):
        client.upsert(name, points, wait=True)
    assert client.count(name).count == 0


@pytest.mark.requirement("S4-07")
def test_retrieve_leaves_out_what_is_not_there_and_ids_may_be_uuids(client: QdrantClient, name: str) -> None:
    identifier = str(uuid.uuid4())
    client.upsert(name, [models.PointStruct(id=identifier, vector=vectors(1)[0], payload={"x": 1})], wait=True)
    assert [point.id for point in client.retrieve(name, [identifier, 5, str(uuid.uuid4())])] == [identifier]
    assert client.query_points(name, query=identifier, limit=3).points == []


def test_payload_changes(client: QdrantClient, name: str) -> None:
    fill(client, name, 4)
    client.set_payload(name, {"new": True}, points=[0], wait=True)
    client.overwrite_payload(name, {"only": 1}, points=[1], wait=True)
    client.delete_payload(name, ["n"], points=[2], wait=True)
    client.clear_payload(name, points_selector=[3], wait=True)
    payloads = {point.id: point.payload for point in client.scroll(name)[0]}
    assert payloads[0] == {"t": "t0", "n": 0, "even": True, "nested": {"deep": [0]}, "new": True}
    assert payloads[1] == {"only": 1}
    assert "n" not in payloads[2]
    assert payloads[3] == {}
    client.set_payload(name, {"by": "filter"}, points=within("t0"), wait=True)
    assert client.retrieve(name, [0])[0].payload["by"] == "filter"


def test_points_go_by_id_and_by_filter(client: QdrantClient, name: str) -> None:
    fill(client, name)
    client.delete(name, [0, 1, 999], wait=True)
    client.delete(name, models.FilterSelector(filter=within("t2")), wait=True)
    assert {point.id % 3 for point in client.scroll(name, limit=100)[0]} == {0, 1}
    assert client.count(name).count == 18


def test_scroll_pages_through_all_and_orders_by_a_field(client: QdrantClient, name: str) -> None:
    fill(client, name)
    seen, offset = [], None
    while True:
        page, offset = client.scroll(name, limit=7, offset=offset)
        seen += [point.id for point in page]
        if offset is None:
            break
    assert seen == list(range(30))
    client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER, wait=True)
    newest, _ = client.scroll(name, limit=3, order_by=models.OrderBy(key="n", direction=models.Direction.DESC))
    assert [point.id for point in newest] == [29, 28, 27]


def test_batch_groups_facets_and_recommendations(client: QdrantClient, name: str) -> None:
    rows = fill(client, name)
    batch = client.query_batch_points(name, [models.QueryRequest(query=rows[i], limit=1) for i in (3, 4)])
    assert [answer.points[0].id for answer in batch] == [3, 4]
    groups = client.query_points_groups(
        name, group_by="t", query=rows[0], limit=3, group_size=2, with_payload=True
    ).groups
    assert {group.id for group in groups} == {"t0", "t1", "t2"}
    assert all(len(group.hits) == 2 and hit.payload["t"] == group.id for group in groups for hit in group.hits)
    facets = client.facet(name, "t", exact=True).hits
    assert {hit.value: hit.count for hit in facets} == {"t0": 10, "t1": 10, "t2": 10}
    alike = client.query_points(
        name, query=models.RecommendQuery(recommend=models.RecommendInput(positive=[5])), limit=3
    )
    assert 5 not in {point.id for point in alike.points}


@pytest.mark.requirement("S3-03")
def test_two_searches_are_fused_by_rank(client: QdrantClient, name: str) -> None:
    rows = fill(client, name)
    client.create_payload_index(name, "text", models.TextIndexParams(type=models.TextIndexType.TEXT), wait=True)
    client.set_payload(name, {"text": "Vector databases find neighbours"}, points=[9], wait=True)
    words = models.Filter(must=[models.FieldCondition(key="text", match=models.MatchText(text="neighbours"))])
    found = client.query_points(
        name,
        prefetch=[models.Prefetch(query=rows[2], limit=5), models.Prefetch(query=rows[2], filter=words, limit=5)],
        query=models.FusionQuery(fusion=models.Fusion.RRF),
        limit=5,
    ).points
    assert {2, 9} <= {point.id for point in found}


def test_a_batch_of_operations_is_done_in_order(client: QdrantClient, name: str) -> None:
    row = vectors(1)[0]
    client.batch_update_points(
        name,
        [
            models.UpsertOperation(
                upsert=models.PointsList(points=[models.PointStruct(id=i, vector=row) for i in (1, 2)])
            ),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"a": 1}, points=[1])),
            models.DeleteOperation(delete=models.PointIdsList(points=[2])),
        ],
        wait=True,
    )
    assert [(point.id, point.payload) for point in client.scroll(name)[0]] == [(1, {"a": 1})]


def test_named_vectors_are_searched_by_name(client: QdrantClient) -> None:
    name = f"n_{uuid.uuid4().hex[:8]}"
    client.create_collection(
        name,
        vectors_config={
            "image": models.VectorParams(size=4, distance=models.Distance.DOT),
            "text": models.VectorParams(size=2, distance=models.Distance.EUCLID),
        },
    )
    client.upsert(
        name,
        [models.PointStruct(id=i, vector={"image": [i, 0, 0, 1], "text": [i, 1]}) for i in range(4)],
        wait=True,
    )
    assert client.query_points(name, query=[1, 0, 0, 0], using="image", limit=1).points[0].id == 3
    assert client.query_points(name, query=[0, 1], using="text", limit=1).points[0].id == 0
    with refused(400):
        client.query_points(name, query=[0, 1], using="nothing")
    client.delete_collection(name)
