"""Versions as programs say them, and which of two is the older."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.system.versions import numbers


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("v1.18.3", (1, 18, 3)),
        ("1.18.3-dev", (1, 18, 3)),
        ("7.0.15", (7, 0, 15)),
        ("15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("pg_dump (PostgreSQL) 18beta2", (18,)),
        ("", ()),
    ],
)
def test_a_version_is_found_in_what_a_program_says(said: str, found: tuple[int, ...]) -> None:
    assert numbers(said) == found


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(["", "v", "server version "]))
def test_numbers_come_back_as_they_were_written(written: list[int], before: str) -> None:
    assert numbers(before + ".".join(map(str, written))) == tuple(written)


def test_the_older_is_the_lesser() -> None:
    assert numbers("") < numbers("v1.9") < numbers("1.10.0") < numbers("v1.18.3") < numbers("2")
