"""Names and ids: no two organisations ever meet (BR-001)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.gateway.caller import Caller, Scope, is_organisation
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.tenancy import (
    ID_FIELD,
    SharedCollection,
    check_collection,
    check_id,
    collection_name,
    parse_collection_name,
    point_id,
    segment_id,
    tenant_of,
)
from plinth.qdrant.search import point_id_for

ORGANISATIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
# Few signs, so that names come near to one another.
NEAR = st.text("a1_-", min_size=1, max_size=6)


def caller(organisation: str, user: str = "u") -> Caller:
    return Caller(organisation, user, frozenset(Scope))


@pytest.mark.parametrize(
    ("organisation", "collection", "physical"),
    [
        ("org-001", "documents", "org_001_documents"),
        ("org-002", "embeddings", "org_002_embeddings"),
        ("org-1", "2_x", "org_1_2_x~1"),
        ("org_1_2", "x", "org-1-2_x"),
        ("org-1-2", "x", "org_1_2_x"),
        ("550e8400-e29b-41d4-a716-446655440000", "docs", "550e8400_e29b_41d4_a716_446655440000_docs"),
    ],
)
@pytest.mark.requirement("S4-01")
def test_br001_the_documents_names(organisation: str, collection: str, physical: str) -> None:
    assert collection_name(organisation, collection) == physical
    assert parse_collection_name(physical) == (organisation, collection)


@given(ORGANISATIONS, NAMES)
def test_a_name_is_read_back(organisation: str, collection: str) -> None:
    assert parse_collection_name(collection_name(organisation, collection)) == (organisation, collection)


@given(st.lists(st.tuples(NEAR, NEAR), min_size=2, max_size=30, unique=True))
def test_no_two_pairs_have_one_name(pairs: list[tuple[str, str]]) -> None:
    valid = [pair for pair in pairs if is_organisation(pair[0]) and pair[1][0].isalnum()]
    assert len({collection_name(*pair) for pair in valid}) == len(valid)


@given(st.text(max_size=40) | st.from_regex(r"[a1_~-]{1,12}", fullmatch=True))
def test_what_is_read_as_an_organisations_is_written_so(name: str) -> None:
    owner = parse_collection_name(name)
    assert owner is None or collection_name(*owner) == name


LOOK_ALIKES = [
    "",
    "..",
    ".",
    "a/b",
    "%2f",
    "a%2fb",
    "\u0430",
    "\uff44ocs",
    "docs\u200b",
    "docs\0",
    "a" * 129,
    "docs~1",
    "a b",
]


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_name_that_looks_like_another_is_refused(name: str) -> None:
    with pytest.raises(GatewayError) as refused:
        check_collection(name)
    assert refused.value.kind is ErrorKind.invalid_argument


@pytest.mark.parametrize("name", [*LOOK_ALIKES, "a.b", "-a", "_a", "a" * 65])
def test_an_organisation_has_plain_signs(name: str) -> None:
    assert not is_organisation(name)


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60), NEAR, NEAR)
def test_equal_ids_of_two_organisations_are_two_points(first: str, second: str, one: str, other: str) -> None:
    shared = {"s": SharedCollection("s", "s")}
    ids = {
        point_id(tenant_of(caller(organisation), "s", shared), given)
        for organisation in {one, other}
        for given in {first, second}
    }
    assert len(ids) == len({one, other}) * len({first, second})


@given(st.lists(st.text(max_size=8), min_size=4, max_size=4), st.lists(st.text(max_size=8), min_size=4, max_size=4))
def test_a_segments_id_is_the_one_of_its_five_parts(first: list[str], second: list[str]) -> None:
    tenant = tenant_of(caller("org"), "embeddings", {"embeddings": SharedCollection("embeddings", "embeddings")})
    assert point_id(tenant, segment_id(*first)) == point_id_for("org", *first)
    assert (segment_id(*first) == segment_id(*second)) == (first == second)


def test_each_user_has_points_of_their_own_where_the_file_says_so() -> None:
    shared = {"trades": SharedCollection("trades", "trades", user_field="user_id")}
    ids = {
        point_id(tenant_of(caller(organisation, user), "trades", shared), "1")
        for organisation in ("a", "b")
        for user in ("a", "b", "u")
    }
    assert len(ids) == 6


@pytest.mark.parametrize(
    "payload",
    [{"org_id": "other"}, {"org_id": None}, {"org_id": ["org", "other"]}, {"user_id": "other"}, {ID_FIELD: "x"}],
)
def test_a_payload_names_no_other_owner(payload: dict[str, object]) -> None:
    shared = {"trades": SharedCollection("trades", "trades", user_field="user_id")}
    tenant = tenant_of(caller("org", "me"), "trades", shared)
    with pytest.raises(GatewayError):
        tenant.payload("1", payload, "points.0.payload")
    assert tenant.payload("1", {"org_id": "org", "user_id": "me"}, "x")["user_id"] == "me"


@pytest.mark.parametrize("given", ["", "x" * 513, "a\0b", "\ud800"])
def test_an_id_that_no_point_can_have_is_refused(given: str) -> None:
    with pytest.raises(GatewayError):
        check_id(given, "id")
