"""The requests of the load gate, on either wire, and what it takes for a right answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from qdrant_client import grpc

from plinth.load.protocols.gateway_grpc import GatewayGrpc
from plinth.load.protocols.gateway_rest import GatewayRest
from plinth.load.protocols.grpc import Grpc
from plinth.load.protocols.rest import Rest
from plinth.load.workload import BATCH, FIRST_SCRATCH_ID, QUERIES, SCRATCH, Answer, Queries, Workload

TENANTS, PARTS, WORDS = ["a", "b"], ["noun", "verb"], ["cat", "run"]
VECTORS = np.eye(2, dtype=np.float32)
PARAMS = {"hnsw_ef": 64, "quantization": {"rescore": True, "oversampling": 2.0}}


@pytest.fixture
def workload() -> Workload:
    return Workload(Queries(TENANTS, PARTS, WORDS, [frozenset({1, 2}), frozenset({3})], [True, False]), 1000)


def rest_filters(body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The `must` of each filter of a request."""
    parts = body.get("prefetch") or [body]
    return [part["filter"]["must"] for part in parts]


@pytest.mark.parametrize("name", ["search", "filtered_search", "hybrid_search", "scroll"])
def test_every_reading_names_its_tenant_on_both_wires(workload: Workload, name: str) -> None:
    for number in range(4):
        tenant, ask = TENANTS[number % 2], workload.ask(name, number)
        body = Rest("c", PARAMS, VECTORS).request(ask).body
        assert body is not None
        for must in rest_filters(orjson.loads(body)):
            assert {"key": "org_id", "match": {"value": tenant}} in must
        message = Grpc("c", PARAMS, VECTORS).request(ask).message
        for part in getattr(message, "prefetch", None) or [message]:
            assert ("org_id", tenant) in [(c.field.key, c.field.match.keyword) for c in part.filter.must]


def test_the_wires_ask_the_same(workload: Workload) -> None:
    rest, rpc = Rest("c", PARAMS, VECTORS), Grpc("c", PARAMS, VECTORS)
    ask = workload.ask("filtered_search", 1)
    body, message = orjson.loads(rest.request(ask).body or b""), rpc.request(ask).message
    assert body["query"] == list(message.query.nearest.dense.data)
    assert body["limit"] == message.limit
    assert body["params"]["hnsw_ef"] == message.params.hnsw_ef
    assert body["params"]["quantization"]["oversampling"] == message.params.quantization.oversampling
    assert body["with_payload"] == list(message.with_payload.include.fields)
    assert [c["match"]["value"] for c in body["filter"]["must"]] == [c.field.match.keyword for c in message.filter.must]
    upsert = workload.ask("upsert_batch_100", 0)
    points = orjson.loads(rest.request(upsert).body or b"")["points"]
    sent = rpc.request(upsert).message
    assert [point["id"] for point in points] == [point.id.num for point in sent.points]
    assert points[0]["payload"] == {key: value.string_value for key, value in sent.points[0].payload.items()}
    assert sent.wait


def test_the_wires_read_the_same_answer(workload: Workload) -> None:
    ask = workload.ask("search", 0)
    body = orjson.dumps({"result": {"points": [{"id": 7, "payload": {"org_id": "a", "model": "noun"}}]}})
    texts = {"org_id": grpc.Value(string_value="a"), "model": grpc.Value(string_value="noun")}
    message = grpc.QueryResponse(result=[grpc.ScoredPoint(id=grpc.PointId(num=7), payload=texts)])
    assert Rest("c", {}, VECTORS).answer(ask, body) == Grpc("c", {}, VECTORS).answer(ask, message)
    write = workload.ask("upsert", 0)
    for status, code in (("completed", grpc.UpdateStatus.Completed), ("acknowledged", grpc.UpdateStatus.Acknowledged)):
        said = grpc.PointsOperationResponse(result=grpc.UpdateResult(status=code))
        content = orjson.dumps({"result": {"status": status}})
        assert Rest("c", {}, VECTORS).answer(write, content) == Grpc("c", {}, VECTORS).answer(write, said)


@pytest.mark.parametrize("name", ["search", "filtered_search", "hybrid_search"])
def test_the_gateways_wires_ask_the_same_and_nothing_that_is_cached(workload: Workload, name: str) -> None:
    rest, rpc, ask = GatewayRest("c", {}, VECTORS), GatewayGrpc("c", {}, VECTORS), workload.ask(name, 1)
    for wire in (rest, rpc):
        wire.encode_ahead([ask])
    body, message = orjson.loads(rest.request(ask).body or b""), rpc.request(ask).message
    assert body["vector"] == list(message.vector)
    assert (body["top_k"], body["with_payload"]) == (message.top_k, list(message.payload_fields))
    conditions = {"org_id": "b", **({"model": "verb"} if name == "filtered_search" else {})}
    assert body["filter"] == {"match": conditions}
    assert {key: match.text for key, match in message.filter.match.items()} == conditions
    assert body.get("text") == (message.text if name == "hybrid_search" else None)
    asked = [orjson.loads(rest.request(ask).body or b"")["score_threshold"] for _ in range(50)]
    asked += [rpc.request(ask).message.score_threshold for _ in range(50)]
    # Below every cosine, so that each point still meets it.
    assert len({*asked[:50]}) == len({*asked[50:]}) == 50
    assert max(asked) <= -2


def test_the_gateways_wires_write_the_same(workload: Workload) -> None:
    ask = workload.ask("upsert_batch_100", 0)
    points = orjson.loads(GatewayRest("c", {}, VECTORS).request(ask).body or b"")["points"]
    sent = GatewayGrpc("c", {}, VECTORS).request(ask).message.points
    assert [(point["id"], point["vector"]) for point in points] == [(point.id, list(point.vector)) for point in sent]
    # Whose they are the gateway says.
    assert points[0]["payload"] == dict(sent[0].payload) == {"model": "scratch", "word": "scratch"}


def points(*payloads: dict[str, str]) -> Answer:
    return Answer(list(enumerate(payloads)))


@pytest.mark.parametrize("name", ["search", "filtered_search", "hybrid_search", "scroll"])
def test_a_point_of_another_tenant_is_wrong(workload: Workload, name: str) -> None:
    ask = workload.ask(name, 0)
    own, strange = {"org_id": "a", "model": "noun"}, {"org_id": "b", "model": "noun"}
    assert workload.outcome(ask, points(own, own)).error is None
    assert workload.outcome(ask, points(own, strange)).error == "a request within a returned a point of b"


def test_a_search_tells_how_many_of_the_nearest_it_found(workload: Workload) -> None:
    own = {"org_id": "a", "model": "noun"}
    outcome = workload.outcome(workload.ask("search", 0), points(own, own))
    # Found are 0 and 1, the nearest are 1 and 2.
    assert (outcome.error, outcome.found, outcome.nearest) == (None, 1, 2)


def test_a_search_that_finds_nothing_is_wrong_where_there_is_something(workload: Workload) -> None:
    assert workload.outcome(workload.ask("search", 0), points()).error == "found nothing within a"
    # A server whose filter matches nothing answers quickest of all.
    assert workload.outcome(workload.ask("filtered_search", 0), points()).error == "found nothing within a, noun"
    # The second tenant has no verb.
    assert workload.outcome(workload.ask("filtered_search", 1), points()).error is None


def test_the_second_condition_of_a_filtered_search_is_checked(workload: Workload) -> None:
    ask = workload.ask("filtered_search", 0)
    assert workload.outcome(ask, points({"org_id": "a", "model": "verb"})).error is not None


def test_a_get_wants_the_point_that_it_asked_for_and_asks_all_over_the_set(workload: Workload) -> None:
    asks = [workload.ask("get", number) for number in range(1000)]
    assert len({ask.ids for ask in asks}) == 1000
    asked = asks[5].ids[0]
    assert workload.outcome(asks[5], Answer([(asked, {})])).error is None
    assert workload.outcome(asks[5], Answer([(asked + 1, {})])).error is not None
    assert workload.outcome(asks[5], Answer()).error is not None


def test_writes_have_a_tenant_and_ids_of_their_own_and_deletes_follow_them(workload: Workload) -> None:
    single, batch = workload.ask("upsert", 0), workload.ask("upsert_batch_100", 1)
    assert (len(single.ids), len(batch.ids)) == (1, BATCH)
    assert [*single.ids, *batch.ids] == [FIRST_SCRATCH_ID + n for n in range(1 + BATCH)]
    assert {single.tenant, batch.tenant} == {SCRATCH}
    assert [workload.ask("delete", 0).ids for _ in range(2)] == [(FIRST_SCRATCH_ID,), (FIRST_SCRATCH_ID + 1,)]


def test_no_two_workers_write_the_same_point() -> None:
    queries = Queries(TENANTS, PARTS, WORDS, [frozenset(), frozenset()], [True, True])
    written = [Workload(queries, 10, worker).ask("upsert_batch_100", 0).ids for worker in range(3)]
    assert len({identifier for ids in written for identifier in ids}) == 3 * BATCH


def test_a_write_that_is_only_acknowledged_is_wrong(workload: Workload) -> None:
    for name in ("upsert", "delete"):
        assert workload.outcome(workload.ask(name, 0), Answer(completed=True)).error is None
        assert "acknowledged" in str(workload.outcome(workload.ask(name, 0), Answer()).error)


@pytest.mark.parametrize("wire", [Rest, Grpc])
def test_a_query_encoded_ahead_is_the_one_that_is_sent(workload: Workload, wire: type[Rest] | type[Grpc]) -> None:
    ahead, fresh = wire("c", PARAMS, VECTORS), wire("c", PARAMS, VECTORS)
    for name in QUERIES:
        ahead.encode_ahead(workload.ask(name, row) for row in range(2))
        for number in range(4):
            assert ahead.request(workload.ask(name, number)) == fresh.request(workload.ask(name, number))
