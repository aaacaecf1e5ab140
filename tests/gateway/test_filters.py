"""Filters (BR-005): what a caller writes, what Qdrant gets, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import GatewayError
from plinth.gateway.filters import CONDITIONS_MAX, DEPTH_MAX, Filter
from plinth.gateway.presets import filled, parameters_of
from plinth.gateway.qdrant_filters import qdrant_filter
from plinth.gateway.tenancy import SharedCollection, tenant_of


def qdrant(content: dict[str, Any]) -> dict[str, Any]:
    return qdrant_filter(Filter.model_validate(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, {}),
        ({"match": {"source": "web"}}, {"must": [{"key": "source", "match": {"value": "web"}}]}),
        ({"match": {"year": [1, 2]}}, {"must": [{"key": "year", "match": {"any": [1, 2]}}]}),
        (
            {"range": {"timestamp": {"gte": "2025-01-01"}}},
            {"must": [{"key": "timestamp", "range": {"gte": "2025-01-01T00:00:00"}}]},
        ),
        ({"range": {"n": {"gt": 1, "lte": 2.5}}}, {"must": [{"key": "n", "range": {"gt": 1.0, "lte": 2.5}}]}),
        (
            {"must_not": {"status": "deleted"}},
            {"must_not": [{"must": [{"key": "status", "match": {"value": "deleted"}}]}]},
        ),
        (
            {"should": [{"match": {"a": True}}, {"match": {"b": 1}}]},
            {
                "should": [
                    {"must": [{"key": "a", "match": {"value": True}}]},
                    {"must": [{"key": "b", "match": {"value": 1}}]},
                ]
            },
        ),
        (
            {"nested": {"key": "parts", "filter": {"match": {"n": 1}}}},
            {"must": [{"nested": {"key": "parts", "filter": {"must": [{"key": "n", "match": {"value": 1}}]}}}]},
        ),
        ({"is_empty": ["at"]}, {"must": [{"is_empty": {"key": "at"}}]}),
    ],
)
@pytest.mark.requirement("S4-05")
def test_br005_every_operator_becomes_qdrants(content: dict[str, Any], expected: dict[str, Any]) -> None:
    assert qdrant(content) == expected


def deep(levels: int) -> dict[str, Any]:
    content: dict[str, Any] = {"match": {"a": 1}}
    for _ in range(levels - 1):
        content = {"must": [content]}
    return content


@pytest.mark.parametrize(
    "content",
    [
        {"unknown": {}},
        {"match": {"a": 1.5}},
        {"match": {"a": None}},
        {"match": {"a": []}},
        {"match": {"a": {"b": 1}}},
        {"match": {"a": 2**63}},
        {"match": {"a": "x" * 5000}},
        {"match": {"": "x"}},
        {"match": {"a..b": "x"}},
        {"match": {"a\0": "x"}},
        {"range": {"a": {}}},
        {"range": {"a": {"gte": 1, "lt": "2025-01-01"}}},
        {"range": {"a": {"gte": "yesterday"}}},
        {"range": {"a": {"gte": "2025-13-01"}}},
        {"range": {"a": {"gte": float("nan")}}},
        {"range": {"a": {"gte": True}}},
        {"range": {"a": {"above": 1}}},
        {"must": {"match": {"a": 1}}},
        {"must": [1]},
        {"nested": [{"key": "a"}]},
        deep(DEPTH_MAX + 1),
        {"match": {f"f{n}": n for n in range(CONDITIONS_MAX + 1)}},
        "source = 'web'",
        [],
    ],
)
@pytest.mark.requirement("S4-09")
def test_ec005_what_is_no_filter_is_refused(content: Any) -> None:
    with pytest.raises(ValidationError):
        Filter.model_validate(content)


def test_the_bounds_themselves_are_allowed() -> None:
    assert Filter.model_validate(deep(DEPTH_MAX)).depth == DEPTH_MAX
    assert Filter.model_validate({"match": {f"f{n}": n for n in range(CONDITIONS_MAX)}}).conditions == CONDITIONS_MAX


@pytest.mark.parametrize(
    "content",
    [
        {"should": [{"match": {"org_id": "other"}}, {"match": {"a": 1}}]},
        {"must_not": [{"match": {"org_id": "mine"}}]},
        {"match": {"org_id": "other"}},
        {},
    ],
)
def test_a_filter_stays_within_its_owner(content: dict[str, Any]) -> None:
    caller = Caller("mine", "u", frozenset(Scope))
    tenant = tenant_of(caller, "s", {"s": SharedCollection("s", "s")})
    condition = tenant.filter(qdrant_filter(Filter.model_validate(content)))
    assert condition is not None
    assert condition["must"][0] == {"key": "org_id", "match": {"value": "mine"}}
    assert condition.keys() == {"must"}


PRESETS = {
    "closed": {"match": {"symbol": "{symbol?}"}, "range": {"at": {"gte": "{since?}", "lt": "{until?}"}}},
    "by": {"match": {"symbol": "{symbol}", "owner": "{user}"}},
}
ME = Caller("org", "me", frozenset(Scope))


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("closed", {}, {}),
        ("closed", {"symbol": "AAPL"}, {"match": {"symbol": "AAPL"}}),
        ("closed", {"since": "2025-01-01"}, {"range": {"at": {"gte": "2025-01-01"}}}),
        ("by", {"symbol": "AAPL"}, {"match": {"symbol": "AAPL", "owner": "me"}}),
    ],
)
@pytest.mark.requirement("S2-04")
def test_a_preset_is_filled(name: str, parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filled(PRESETS, name, parameters, ME) == Filter.model_validate(expected)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("none", {}),
        ("by", {}),
        ("by", {"symbol": "A", "user": "other"}),
        ("closed", {"other": 1}),
        ("closed", {"since": "yesterday"}),
    ],
)
def test_a_preset_that_cannot_be_filled_is_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(GatewayError):
        filled(PRESETS, name, parameters, ME)


def test_the_parameters_of_a_preset_are_known() -> None:
    assert parameters_of(PRESETS["closed"]) == {"symbol", "since", "until"}
