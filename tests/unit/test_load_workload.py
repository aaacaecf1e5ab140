"""The requests of the load gate, and what it takes for a right answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from plinth.load.workload import BATCH, FIRST_SCRATCH_ID, SCRATCH, Workload

TENANTS, PARTS = ["a", "b"], ["noun", "verb"]


@pytest.fixture
def workload() -> Workload:
    return Workload("c", {"hnsw_ef": 64}, 1000, np.eye(2, dtype=np.float32), TENANTS, PARTS)


def body_of(workload: Workload, name: str, number: int) -> dict[str, Any]:
    body = workload.call(name, number).body
    assert body is not None
    found: dict[str, Any] = orjson.loads(body)
    return found


def hits(*payloads: dict[str, str]) -> dict[str, Any]:
    return {"points": [{"id": number, "payload": payload} for number, payload in enumerate(payloads)]}


@pytest.mark.parametrize("name", ["search", "filtered_search", "scroll"])
def test_every_reading_names_its_tenant(workload: Workload, name: str) -> None:
    for number in range(4):
        assert {"key": "org_id", "match": {"value": TENANTS[number % 2]}} in body_of(workload, name, number)["filter"][
            "must"
        ]


@pytest.mark.parametrize("name", ["search", "filtered_search", "scroll"])
def test_a_point_of_another_tenant_is_wrong(workload: Workload, name: str) -> None:
    check = workload.call(name, 0).check
    own, strange = {"org_id": "a", "model": "noun"}, {"org_id": "b", "model": "noun"}
    assert check(hits(own, own)) is None
    assert check(hits(own, strange)) == "a request within a returned a point of b"


def test_a_search_that_finds_nothing_is_wrong_and_a_filtered_one_may(workload: Workload) -> None:
    assert workload.call("search", 0).check(hits()) == "found nothing within a"
    assert workload.call("filtered_search", 0).check(hits()) is None


def test_the_second_condition_of_a_filtered_search_is_checked(workload: Workload) -> None:
    assert workload.call("filtered_search", 0).check(hits({"org_id": "a", "model": "verb"})) is not None


def test_a_get_wants_the_point_that_it_asked_for_and_asks_all_over_the_set(workload: Workload) -> None:
    calls = [workload.call("get", number) for number in range(1000)]
    assert len({call.path for call in calls}) == 1000
    asked = int(calls[5].path.rpartition("/")[2])
    assert calls[5].check({"id": asked}) is None
    assert calls[5].check({"id": asked + 1}) is not None


def test_writes_have_a_tenant_and_ids_of_their_own_and_deletes_follow_them(workload: Workload) -> None:
    single, batch = body_of(workload, "upsert", 0)["points"], body_of(workload, "upsert_batch_100", 1)["points"]
    assert (len(single), len(batch)) == (1, BATCH)
    assert [point["id"] for point in single + batch] == [FIRST_SCRATCH_ID + n for n in range(1 + BATCH)]
    assert {point["payload"]["org_id"] for point in single + batch} == {SCRATCH}
    assert [body_of(workload, "delete", 0)["points"] for _ in range(2)] == [[FIRST_SCRATCH_ID], [FIRST_SCRATCH_ID + 1]]


def test_a_write_that_is_only_acknowledged_is_wrong(workload: Workload) -> None:
    for name in ("upsert", "delete"):
        assert workload.call(name, 0).check({"status": "completed"}) is None
        assert "acknowledged" in str(workload.call(name, 0).check({"status": "acknowledged"}))
