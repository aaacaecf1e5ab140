"""Another API key for a cluster: whatever node is changed first, no two nodes ever refuse each other."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from plinth.qdrant.key_rotation import Keys, steps

NAMES = st.sampled_from(["one", "two", "three", "four"])
KEYS = st.builds(Keys, NAMES, st.none() | NAMES)


@given(KEYS, KEYS)
def test_nodes_of_neighbouring_steps_take_each_other(before: Keys, wanted: Keys) -> None:
    taken = [before, *steps(before, wanted)]
    assert taken[-1] == wanted
    for old, new in itertools.pairwise(taken):
        assert old.takes(new.key)
        assert new.takes(old.key)


@given(KEYS, st.none() | NAMES, st.none() | NAMES)
def test_what_is_no_other_key_is_one_step(keys: Keys, beside: str | None, other: str | None) -> None:
    assert len(steps(Keys(keys.key, beside), Keys(keys.key, other))) == 1


@given(KEYS, KEYS, st.integers(0, 2))
def test_steps_that_stopped_anywhere_can_be_begun_anew(before: Keys, wanted: Keys, done: int) -> None:
    first = steps(before, wanted)
    if done + 1 >= len(first):
        return
    # Some nodes have gone on and some have not; what is known is the last step that all of them took.
    nodes = (first[done], first[done + 1])
    again = steps(first[done], wanted)[0]
    assert all(node.takes(again.key) and again.takes(node.key) for node in nodes)
