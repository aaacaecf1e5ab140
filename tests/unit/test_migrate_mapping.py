"""Ids, values, vectors, digests, batches and differences: what a migration computes, by property."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.migrate.digest import Point, added, digest
from plinth.migrate.json_values import document, moment, number, whole
from plinth.migrate.model import VectorShape
from plinth.migrate.point_ids import point_id
from plinth.migrate.recall_check import agreement
from plinth.migrate.upsert import BATCH_BYTES, batches, encode
from plinth.migrate.vectors import Unfit, near, prepared, sparse
from plinth.migrate.verify import compare, difference

COSINE = {"": VectorShape(3, "Cosine")}
part = st.one_of(st.integers(), st.text(max_size=12), st.uuids().map(str))
keys = st.one_of(part, st.tuples(part, part))
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
points = st.builds(
    lambda key, vector, payload: Point(point_id(key, "s"), {"": np.array(vector, np.float32)}, payload),
    keys,
    st.lists(floats, min_size=3, max_size=3),
    st.dictionaries(st.text(), json_values, max_size=3),
)


@given(st.lists(keys, unique_by=lambda key: json.dumps(key), max_size=30), st.text(), st.text())
def test_two_keys_never_give_one_id_and_one_key_always_the_same(some: list[Any], here: str, there: str) -> None:
    ids = [point_id(key, here) for key in some]
    assert len(set(ids)) == len(some)
    assert ids == [point_id(key, here) for key in some]
    for key, identifier in zip(some, ids, strict=True):
        # What Qdrant takes as an id, and nothing else.
        assert 0 <= identifier < 2**64 if isinstance(identifier, int) else str(uuid.UUID(identifier)) == identifier
        if identifier != key and here != there:
            assert point_id(key, there) != identifier


@pytest.mark.parametrize("key", [0, 7, 2**64 - 1, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
def test_ids_that_qdrant_takes_stay(key: int | str) -> None:
    assert point_id(key, "anything") == key


@pytest.mark.parametrize("key", [-1, 2**64, "7", "", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "doc-123", (1, 2)])
def test_other_keys_become_uuids_of_version_five(key: Any) -> None:
    assert uuid.UUID(str(point_id(key, "s"))).version == 5


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_a_number_is_exactly_that_number_or_its_text(value: Decimal) -> None:
    mapped = number(str(value))
    if isinstance(mapped, str):
        assert mapped == str(value)
    else:
        assert Decimal(repr(mapped)) == value
        assert json.loads(json.dumps(mapped)) == mapped


@given(st.integers())
def test_a_whole_number_fits_or_is_text(value: int) -> None:
    mapped = whole(str(value))
    assert mapped == (value if -(2**63) <= value < 2**64 else str(value))


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_keeps_its_microseconds(value: datetime) -> None:
    text = (
        value.isoformat(sep=" ").removesuffix("+00:00").rstrip("0") if value.microsecond else value.isoformat(" ")[:19]
    )
    assert datetime.fromisoformat(moment(text + "+00")) == value
    assert moment("infinity") == "infinity"


@given(json_values)
def test_json_is_as_it_was(value: Any) -> None:
    assert document(json.dumps(value)) == value


def test_json_loses_no_digit_of_what_64_bits_do_not_hold() -> None:
    assert document('{"a": 123456789012345678901234567890, "b": 1e999}') == {
        "a": "123456789012345678901234567890",
        "b": "1e999",
    }


@given(st.lists(floats, min_size=3, max_size=3))
def test_a_vector_under_cosine_has_the_length_one_or_is_refused(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    if not np.any(vector):
        with pytest.raises(Unfit, match="zero"):
            prepared({"": vector}, COSINE)
        return
    unit = prepared({"": vector}, COSINE)[""]
    assert isinstance(unit, np.ndarray)
    assert np.linalg.norm(unit.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    # Once more changes no bit: what comes from a collection goes into the next as it is.
    assert np.array_equal(prepared({"": unit}, COSINE)[""], unit)


@pytest.mark.parametrize(
    ("vector", "shape", "words"),
    [
        ([1, 2], VectorShape(3, "Dot"), "2 dimensions, not 3"),
        ([1, float("nan"), 2], VectorShape(3, "Dot"), "NaN"),
        ([1, float("inf"), 2], VectorShape(3, "Dot"), "infinite"),
        ([1, 70000, 2], VectorShape(3, "Dot", "float16"), "half precision"),
        ([1, 2.5, 2], VectorShape(3, "Dot", "uint8"), "whole number"),
    ],
)
def test_what_a_collection_cannot_hold_is_refused(vector: list[float], shape: VectorShape, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        prepared({"": np.array(vector, np.float32)}, {"": shape})


def test_a_row_without_its_vector_is_refused() -> None:
    with pytest.raises(Unfit, match="missing"):
        prepared({}, COSINE)
    assert prepared({"a": np.ones(2, np.float32)}, {"a": VectorShape(2, "Dot"), "b": VectorShape(2, "Dot")})


@given(st.lists(points, max_size=8, unique_by=lambda point: point.id), st.randoms())
def test_a_digest_of_a_set_does_not_depend_on_the_order(some: list[Point], drawn: Any) -> None:
    def total(order: list[Point]) -> int:
        sum_ = 0
        for point in order:
            sum_ = added(sum_, digest(point))
        return sum_

    shuffled = list(some)
    drawn.shuffle(shuffled)
    assert total(some) == total(shuffled)
    if some:
        # One that is there twice, or missing, does not go unnoticed.
        assert total([*some, some[0]]) != total(some) != total(some[1:])


@given(points, st.sampled_from(["id", "vector", "payload"]))
def test_a_digest_sees_every_change(point: Point, changed: str) -> None:
    vector = point.vectors[""]
    assert isinstance(vector, np.ndarray)
    other = {
        "id": Point("other", point.vectors, point.payload),
        "vector": Point(point.id, {"": np.append(vector, np.float32(1))}, point.payload),
        "payload": Point(point.id, point.vectors, {**point.payload, "new": None}),
    }[changed]
    assert digest(other) != digest(point)
    shapes = {"": VectorShape(3, "Dot")}
    assert difference(point, point, shapes) == ""
    if changed != "id":
        assert difference(point, other, shapes)
        found = compare([point], {point.id: other}, shapes)
        assert (found.different, found.digest_source == found.digest_target) == (1, False)


def test_a_point_that_is_not_there_is_missing() -> None:
    point = Point(1, {"": np.ones(3, np.float32)}, {})
    found = compare([point], {}, {"": VectorShape(3, "Dot")})
    assert (found.missing, found.digest_target, found.examples) == (1, 0, ("1: missing",))


def test_rounding_of_its_type_is_no_difference_and_more_is() -> None:
    sent = np.array([0.1, 0.2, -1.0], np.float32)
    assert near(sent.astype(np.float16).astype(np.float32), sent, "float16")
    assert not near(sent.astype(np.float16).astype(np.float32), sent, "float32")
    assert near(sparse([3, 1], [1, 2]), sparse([1, 3], [2, 1]), "float32")
    assert not near(sparse([3, 2], [1, 2]), sparse([1, 3], [2, 1]), "float32")


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 7), st.integers(10, 100))
def test_batches_are_bounded_by_rows_and_by_bytes(sizes: list[int], rows: int, most: int) -> None:
    some = [(key, b"x" * size) for key, size in enumerate(sizes)]
    made = list(batches(some, rows, most))
    assert [point for batch in made for point in batch] == some
    assert all(0 < len(batch) <= rows for batch in made)
    assert all(len(batch) == 1 or sum(len(encoded) for _, encoded in batch) <= most for batch in made)
    assert BATCH_BYTES < 32 * 2**20


def test_a_point_is_encoded_without_a_lost_bit() -> None:
    vector = np.random.default_rng(1).normal(size=200).astype(np.float32)
    read = json.loads(encode(Point(1, {"": vector}, {"a": 0.1})))
    assert np.array_equal(np.array(read["vector"], np.float32), vector)


def test_a_neighbour_with_the_score_of_the_last_true_one_is_a_true_one() -> None:
    shape = VectorShape(2, "Cosine")
    truth = [(1.0, 1), (0.9, 2), (0.8, 3)]
    assert agreement(truth, [(1.0, 1), (0.9, 2), (0.8, 4)], shape) == 3
    assert agreement(truth, [(1.0, 1), (0.9, 2), (0.7, 4)], shape) == 2
    assert agreement([(0.1, 1), (0.2, 2)], [(0.1, 1), (0.3, 3)], VectorShape(2, "Euclid")) == 1
