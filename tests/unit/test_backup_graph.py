"""A graph as lines: every value comes back, no order changes the checksum, batches keep their bounds."""

from __future__ import annotations

import math
import random
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neo4j.spatial import CartesianPoint, WGS84Point

from plinth.backup.manifest import Neo4jPart
from plinth.backup.stores.neo4j import jsonl_format
from plinth.backup.stores.neo4j.backup import counted, tallied
from plinth.backup.stores.neo4j.restore import compared, too_old

pytestmark = pytest.mark.requirement("S1-06")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": FLOATS,
    "boolean": st.booleans(),
    "cartesian": st.tuples(FLOATS, FLOATS).map(CartesianPoint),
    "cartesian-3d": st.tuples(FLOATS, FLOATS, FLOATS).map(CartesianPoint),
    "wgs-84": st.tuples(st.floats(-180, 180), st.floats(-90, 90)).map(WGS84Point),
    "wgs-84-3d": st.tuples(st.floats(-180, 180), st.floats(-90, 90), FLOATS).map(WGS84Point),
}
VALUES = st.one_of(
    st.binary(max_size=20), *SCALARS.values(), *(st.lists(each, max_size=5) for each in SCALARS.values())
)
TYPED = st.sampled_from([("date", "2020-02-29"), ("durations", ["P1D", "PT-0.5S"]), ("time", {"hour": 1})])
PROPERTIES = st.dictionaries(
    TEXT.filter(lambda key: key != jsonl_format.KEY),
    st.one_of(VALUES.map(lambda value: (None, value)), TYPED),
    max_size=6,
).map(lambda found: [[key, *about] for key, about in found.items()])


def bits(value: Any) -> Any:
    """A value in which NaN is NaN, -0.0 is not 0.0, and 1 is not 1.0 nor True."""
    if isinstance(value, CartesianPoint | WGS84Point):
        return (type(value), value.srid, [bits(each) for each in value])
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else struct.pack(">d", value))
    if isinstance(value, list):
        return [bits(each) for each in value]
    return (type(value), value)


@given(TEXT, st.lists(TEXT, unique=True, max_size=4), PROPERTIES)
def test_a_node_comes_back_as_it_was(id_: str, labels: list[str], properties: list[list[Any]]) -> None:
    row = jsonl_format.row(
        jsonl_format.node_line(id_, [*labels, jsonl_format.MARK], [*properties, [jsonl_format.KEY, None, "x"]])
    )
    assert (row["id"], row["labels"]) == (id_, sorted(labels))
    plain = {key: value for key, kind, value in properties if kind is None}
    assert {key: bits(value) for key, value in row["properties"].items()} == {k: bits(v) for k, v in plain.items()}
    assert sorted(row["typed"], key=repr) == sorted(([k, t, v] for k, t, v in properties if t), key=repr)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, PROPERTIES), max_size=8), st.randoms())
def test_no_order_changes_a_checksum_and_every_change_does(rows: list[Any], chance: random.Random) -> None:
    lines = [jsonl_format.relationship_line(*row) for row in rows]
    shuffled = [jsonl_format.relationship_line(*row[:3], chance.sample(row[3], len(row[3]))) for row in rows]
    chance.shuffle(shuffled)
    before, after = (tallied(each, lambda _: None) for each in (lines, shuffled))
    assert (before.checksum, before.counts, before.count) == (after.checksum, after.counts, len(rows))
    if lines:
        twice = tallied([*lines, lines[0]], lambda _: None)
        other = tallied(
            [jsonl_format.relationship_line(rows[0][0], rows[0][1] + "x", *rows[0][2:]), *lines[1:]], lambda _: None
        )
        assert before.checksum not in (twice.checksum, other.checksum)
        assert counted(before) == counted(other) != counted(twice)


@given(st.lists(st.binary(max_size=30), max_size=60), st.integers(1, 9), st.integers(1, 90))
def test_batches_are_all_lines_in_order_within_their_bounds(lines: list[bytes], rows: int, size: int) -> None:
    made = list(jsonl_format.batches(lines, rows, size))
    assert [line for batch in made for line in batch] == lines
    assert all(len(batch) <= rows and (len(batch) == 1 or sum(map(len, batch)) <= size) for batch in made)
    # None could have taken the first line of the next.
    for batch, following in pairwise(made):
        assert len(batch) == rows or sum(map(len, batch)) + len(following[0]) > size


@given(st.lists(TYPED, min_size=2, max_size=4), st.lists(TEXT, unique=True, min_size=1), st.randoms())
def test_one_node_has_one_line(typed: list[Any], labels: list[str], chance: random.Random) -> None:
    properties = [[str(n), *about] for n, about in enumerate(typed)]
    again = jsonl_format.node_line("1", chance.sample(labels, len(labels)), chance.sample(properties, len(properties)))
    assert again == jsonl_format.node_line("1", labels, properties)


def test_a_type_that_cannot_be_kept_is_named() -> None:
    with pytest.raises(TypeError, match="complex"):
        jsonl_format.node_line("1", [], [["k", None, [1j]]])


NODES = [jsonl_format.node_line("a", ["P"], [["n", None, 1]]), jsonl_format.node_line("b", ["P", "Q"], [])]
LINKS = [jsonl_format.relationship_line("T", "a", "b", [])]


def part() -> Neo4jPart:
    of_nodes, of_links = (tallied(each, lambda _: None) for each in (NODES, LINKS))
    return Neo4jPart(
        version="5.26.10",
        nodes_path="neo4j/nodes.jsonl",
        relationships_path="neo4j/relationships.jsonl",
        nodes=counted(of_nodes),
        relationships=counted(of_links),
        nodes_checksum=of_nodes.checksum,
        relationships_checksum=of_links.checksum,
        constraints=(),
        indexes=(),
    )


@pytest.mark.parametrize(
    ("nodes", "links", "words"),
    [
        (NODES[::-1], LINKS, []),
        (NODES[:1], LINKS, ["1 nodes and not 2"]),
        (NODES, [jsonl_format.relationship_line("U", "a", "b", [])], ["relationships under other names than they had"]),
        (
            NODES,
            [jsonl_format.relationship_line("T", "b", "a", [])],
            ["relationships with other content than they had"],
        ),
        (
            [jsonl_format.node_line("a", ["P"], [["n", None, 1.0]]), NODES[1]],
            [],
            ["nodes with other content", "0 relation"],
        ),
    ],
)
def test_what_is_not_as_it_was_saved_is_said(nodes: list[bytes], links: list[bytes], words: list[str]) -> None:
    said = compared(part(), nodes, links)
    assert len(said) == len(words)
    assert all(each in sentence for each, sentence in zip(words, said, strict=True))


@pytest.mark.parametrize(
    ("server", "saved", "needed"),
    [
        ("5.26.10", "5.26.10", None),
        ("5.26.0", "5.26.10", None),
        ("2025.10.1", "5.26.10", None),
        ("5.26.10", "2025.01.0", "2025.01.0"),
        ("5.25.1", "5.20.0", "5.26"),
        ("4.4.40", "4.4.40", "5.26"),
    ],
)
def test_a_server_that_may_not_know_what_the_set_holds_is_refused(server: str, saved: str, needed: str | None) -> None:
    said = too_old(server, saved)
    assert (said is None) == (needed is None)
    assert needed is None or f"needs {needed} or newer" in str(said)
