"""`search`, `recommend`, and the words that read a second collection: the same on both engines."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import KEY, Server

VECTOR = [0.1, 0.2, 0.3, 0.4]
Asking = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(server: Server) -> Iterator[Asking]:
    """A question about points of a collection with eight of them, `n` 1 to 8 in groups x, y, z; the result."""
    name, other = (f"o_{uuid.uuid4().hex[:8]}" for _ in range(2))
    with httpx.Client(base_url=server.url, headers={"api-key": KEY}, timeout=60) as client:

        def request(method: str, path: str, body: Any) -> Any:
            answer = client.request(method, path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()["result"]

        for each, ids in ((name, range(1, 9)), (other, range(3, 23))):
            request("PUT", f"/collections/{each}", {"vectors": {"size": 4, "distance": "Dot"}})
            points = [{"id": i, "vector": [i / 10, 0.2, 0.3, 0.4], "payload": {"g": "xyz"[i % 3], "n": i}} for i in ids]
            request("PUT", f"/collections/{each}/points?wait=true", {"points": points})
        request("PUT", f"/collections/{name}/index?wait=true", {"field_name": "n", "field_schema": "integer"})

        def question(path: str, body: dict[str, Any], method: str = "POST") -> Any:
            return request(method, f"/collections/{name}/points{path}", _named(body, other))

        yield question
        for each in (name, other):
            client.delete(f"/collections/{each}")


def _named(body: Any, other: str) -> Any:
    """The body with the other collection's name where it says `OTHER`."""
    if isinstance(body, dict):
        return {key: _named(value, other) for key, value in body.items()}
    if isinstance(body, list):
        return [_named(value, other) for value in body]
    return other if body == "OTHER" else body


def ids(hits: list[dict[str, Any]]) -> list[Any]:
    return [hit["id"] for hit in hits]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"limit": 3}, [8, 7, 6]),
        ({"top": 2}, [8, 7]),
        ({"limit": 3, "offset": 2}, [6, 5, 4]),
        ({"limit": 9, "filter": {"must": [{"key": "g", "match": {"value": "x"}}]}}, [6, 3]),
        ({"limit": 9, "score_threshold": 0.355}, [8, 7]),
        ({"limit": 2, "params": {"exact": True}}, [8, 7]),
    ],
)
def test_a_search_answers_a_list_of_hits(ask: Asking, body: dict[str, Any], expected: list[int]) -> None:
    hits = ask("/search", {"vector": VECTOR, **body})
    assert ids(hits) == expected
    assert set(hits[0]) == {"id", "version", "score"}
    assert ids(ask("/search", {"vector": {"name": "", "vector": VECTOR}, **body})) == expected


def test_a_search_answers_payload_and_vector_where_they_are_asked_for(ask: Asking) -> None:
    (hit,) = ask("/search", {"vector": VECTOR, "limit": 1, "with_payload": True, "with_vector": True})
    assert hit["payload"] == {"g": "z", "n": 8}
    # The shortest form of single precision.
    assert hit["vector"] == [0.8, 0.2, 0.3, 0.4]
    (again,) = ask("/search", {"vector": VECTOR, "limit": 1, "with_vectors": True})
    assert again["vector"] == hit["vector"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"positive": [1]}, [8, 7, 6]),
        ({"positive": [8], "negative": [1]}, [7, 6, 5]),
        ({"positive": [VECTOR], "offset": 1}, [7, 6, 5]),
        ({"positive": [1], "negative": [2], "strategy": "best_score"}, None),
        ({"positive": [1], "strategy": "sum_scores"}, [8, 7, 6]),
        ({"negative": [8], "strategy": "best_score"}, [1, 2, 3]),
        ({"positive": [20], "lookup_from": {"collection": "OTHER"}}, [8, 7, 6]),
    ],
)
def test_a_recommendation_answers_a_list_of_hits(ask: Asking, body: dict[str, Any], expected: list[int] | None) -> None:
    hits = ask("/recommend", {**body, "limit": 3})
    assert ids(hits) == expected if expected else len(hits) == 3
    assert set(hits[0]) == {"id", "version", "score"}


def test_batches_answer_a_list_for_each_and_groups_answer_groups(ask: Asking) -> None:
    one, two = {"vector": VECTOR, "limit": 1}, {"vector": VECTOR, "limit": 2, "offset": 1}
    assert [ids(hits) for hits in ask("/search/batch", {"searches": [one, two]})] == [[8], [7, 6]]
    wishes = [{"positive": [1], "limit": 1}, {"positive": [8], "limit": 2}]
    assert [ids(hits) for hits in ask("/recommend/batch", {"searches": wishes})] == [[8], [7, 6]]
    grouping = {"group_by": "g", "limit": 2, "group_size": 2}
    for path, body in (("/search/groups", {"vector": VECTOR}), ("/recommend/groups", {"positive": [2]})):
        groups = ask(path, body | grouping)["groups"]
        assert [(group["id"], ids(group["hits"])) for group in groups] == [
            ("z", [8, 5]),
            ("y", [7, 4]),
        ], path


def test_groups_bring_the_point_that_their_id_names(ask: Asking) -> None:
    body = {"query": VECTOR, "group_by": "n", "limit": 8, "group_size": 1}
    groups = ask("/query/groups", body | {"with_lookup": "OTHER"})["groups"]
    found = {group["id"]: group.get("lookup", {}).get("payload") for group in groups}
    assert found[8] == {"g": "z", "n": 8}
    assert found[1] is None
    for word in ("with_vectors", "with_vector"):
        lookup = {"collection": "OTHER", "with_payload": ["n"], word: True}
        first = ask("/query/groups", body | {"with_lookup": lookup})["groups"][0]["lookup"]
        assert first["payload"] == {"n": 8}
        assert first["vector"] == [0.8, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    "body",
    [
        {"query": 20, "lookup_from": {"collection": "OTHER"}},
        {"query": {"nearest": 20}, "lookup_from": {"collection": "OTHER"}},
        {"prefetch": {"query": 20, "lookup_from": {"collection": "OTHER"}, "limit": 3}, "query": {"fusion": "rrf"}},
        {"query": {"recommend": {"positive": [20], "negative": [3]}}, "lookup_from": {"collection": "OTHER"}},
    ],
)
def test_an_id_is_looked_up_where_the_query_says(ask: Asking, body: dict[str, Any]) -> None:
    assert ids(ask("/query", body | {"limit": 3})["points"]) == [8, 7, 6]


def test_a_stage_leaves_out_the_point_that_it_asks_with(ask: Asking) -> None:
    body = {"prefetch": [{"query": 8, "limit": 8}], "query": {"fusion": "rrf"}}
    assert 8 not in ids(ask("/query", body)["points"])


def test_without_a_query_points_are_passed_over_and_shown_as_asked(ask: Asking) -> None:
    points = ask("/query", {"offset": 2, "limit": 2, "with_vector": True})["points"]
    assert ids(points) == [3, 4]
    assert points[0]["vector"] == pytest.approx([0.3, 0.2, 0.3, 0.4])
    assert points[0]["score"] == 1.0


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("upsert", {101: "new", 102: "new"}), ("insert_only", {101: "old", 102: "new"}), ("update_only", {101: "new"})],
)
def test_an_upsert_inserts_and_updates_as_its_mode_says(ask: Asking, mode: str, expected: dict[int, str]) -> None:
    def upsert(identifiers: list[int], text: str, **words: str) -> None:
        points = [{"id": i, "vector": VECTOR, "payload": {"text": text}} for i in identifiers]
        ask("?wait=true", {"points": points, **words}, method="PUT")

    upsert([101], "old")
    upsert([101, 102], "new", update_mode=mode)
    points = ask("", {"ids": [101, 102], "with_payload": True})
    assert {point["id"]: point["payload"]["text"] for point in points} == expected
    ask("/delete?wait=true", {"points": [101, 102]})
