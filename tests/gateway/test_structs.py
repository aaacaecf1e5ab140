"""Payloads as google.protobuf.Struct: what is written comes back, and numbers are what JSON would write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.gateway.grpc_api.structs import INTEGER_MAX, from_struct, to_struct

numbers = st.integers(-INTEGER_MAX, INTEGER_MAX) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_an_object_comes_back(content: dict[str, Any]) -> None:
    message = to_struct(content)
    sent = type(message).FromString(message.SerializeToString())
    assert from_struct(sent, "payload") == content


@pytest.mark.parametrize(
    ("given_number", "back"),
    [
        (2024, 2024),
        (2024.0, 2024),
        (-0.0, 0),
        (2.5, 2.5),
        (INTEGER_MAX, INTEGER_MAX),
        (-INTEGER_MAX, -INTEGER_MAX),
        (INTEGER_MAX + 1, float(2**53)),
        (INTEGER_MAX + 2, float(2**53)),
        (float(2**60), float(2**60)),
        (1e300, 1e300),
    ],
)
def test_a_number_without_a_fraction_is_an_integer_up_to_where_doubles_hold_each(
    given_number: float, back: float
) -> None:
    number = from_struct(to_struct({"n": given_number}), "payload")["n"]
    assert number == back
    assert isinstance(number, int) == (abs(given_number) <= INTEGER_MAX and float(given_number).is_integer())
