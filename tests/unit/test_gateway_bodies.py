"""Bodies of the gateway's REST: read quickly, and for the same as by a parser that sees each key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plinth.gateway.errors import GatewayError
from plinth.gateway.rest_api import bodies

NUMBERS = (
    st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([2**63, 2**63 - 1, 2**64, -(2**63), -(2**63) - 1])
)
TEXTS = st.text(max_size=4) | st.sampled_from(["a:b", '":"', "\ud800", "2025-01-01T00:00:00Z"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    # Pairs, so that a key may be there twice.
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(st.tuples(st.sampled_from("ab:"), inner), max_size=3).map(tuple)
    ),
    max_leaves=12,
)


def written(value: Any) -> str:
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(key)} : {written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def outcome(parse: Any, body: bytes) -> Any:
    try:
        # Written again, so that 1 is not 1.0 and -0.0 not 0.
        return json.dumps(parse(body))
    except GatewayError as error:
        return error.message


@given(VALUES.map(written) | st.text(max_size=8))
@example('{"a": 1, "a": 2}')
@example('{"a": {"b": 1, "b": 2}, "c:": "x"}')
@example('{"a": 1, "a": ":"}')
@example("[" * 64 + "]" * 64)
@example("[" * 65 + "]" * 65)
@example("[1e400]")
@example("[123456789012345678901234567890]")
def test_a_body_is_read_as_by_a_parser_that_sees_each_key(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    assert outcome(bodies.parse, body) == outcome(bodies._parsed, body)


@pytest.mark.parametrize(
    ("body", "quickly"),
    [
        (b'{"vector": [0.1, 0.2], "filter": {"match": {"a": "b"}}}', True),
        (b'{"a": "2025-01-01T00:00:00Z"}', False),
        (b'{"a": 1, "a": 1}', False),
    ],
)
def test_what_orjson_may_have_lost_is_read_again(body: bytes, quickly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[bytes] = []
    monkeypatch.setattr(bodies, "_parsed", again.append)
    bodies.parse(body)
    assert again == ([] if quickly else [body])
