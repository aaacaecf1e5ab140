"""Points that a user shares with their organisation (S2-04): everybody of it reads them, and nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import GatewayError
from plinth.gateway.tenancy import SharedCollection, Tenant, point_id, shared_id, tenant_of
from tests.gateway.clients import PROTOCOLS, ApiError, VectorClient, connect
from tests.gateway.conftest import Gateway

NAME = "playbooks"
USERS = ("ann", "bob")
ID = "opening range"
# Of every point and query: all are as near as each other.
VECTOR = [1.0] + [0.0] * 383
Team = dict[tuple[str, str], VectorClient]


def playbook(given_id: str, **payload: Any) -> dict[str, Any]:
    return {"id": given_id, "vector": VECTOR, "payload": payload}


@pytest.fixture(scope="module", params=PROTOCOLS)
def team(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Team]:
    """Two users of equal names in two organisations; each has a private and a shared point under equal ids."""
    organisations = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in ("one", "two")}
    clients = {
        (name, user): connect(gateway, request.param, organisation, user)
        for name, organisation in organisations.items()
        for user in USERS
    }
    for (name, user), client in clients.items():
        about = {"owner": f"{name}/{user}", "name": "gap fade"}
        client.batch_upsert(
            NAME, [playbook(ID, **about, is_public=True), playbook("private", **about), playbook("no", is_public=False)]
        )
    yield clients
    for client in clients.values():
        client.batch_delete(NAME, filter={})
        client.close()


def ids(points: list[dict[str, Any]]) -> list[str]:
    return sorted(point["id"] for point in points)


OWN = sorted([ID, "private", "no"])
READS: dict[str, Callable[[VectorClient], list[dict[str, Any]]]] = {
    "search": lambda client: client.search(NAME, vector=VECTOR, top_k=50),
    "batch": lambda client: client.batch_search(NAME, [{"vector": VECTOR, "top_k": 50}])[0],
    "scroll": lambda client: client.scroll(NAME, limit=50)[0],
    "get": lambda client: client.get(NAME, [*OWN, *(shared_id(user, name) for user in USERS for name in OWN)]),
    "as wide as a filter goes": lambda client: client.search(
        NAME, vector=VECTOR, top_k=50, filter={"must_not": [{"match": {"owner": "nobody"}}]}
    ),
}


@pytest.mark.requirement("S2-04")
@pytest.mark.parametrize("read", READS)
def test_a_shared_point_is_read_by_everybody_of_its_organisation_and_by_nobody_else(team: Team, read: str) -> None:
    for (name, user), client in team.items():
        other = "bob" if user == "ann" else "ann"
        points = {point["id"]: point["payload"] for point in READS[read](client)}
        assert sorted(points) == sorted([*OWN, shared_id(other, ID)])
        assert points[ID]["owner"] == f"{name}/{user}"
        assert points[shared_id(other, ID)]["owner"] == f"{name}/{other}"


@pytest.mark.parametrize(
    ("query", "own", "others"),
    [
        ({"preset": "mine"}, OWN, []),
        ({"preset": "shared"}, [ID], [ID]),
        ({"filter": {"match": {"is_public": False}}}, ["no"], []),
        ({"filter": {"match": {"name": "no such"}}}, [], []),
        ({"top_k": 1, "preset": "shared", "filter": {"match": {"user_id": "bob"}}}, [], [ID]),
    ],
)
def test_filters_and_presets_hold_among_what_is_read(
    team: Team, query: dict[str, Any], own: list[str], others: list[str]
) -> None:
    hits = team["one", "ann"].search(NAME, **{"vector": VECTOR, "top_k": 50, **query})
    assert ids(hits) == sorted([*own, *(shared_id("bob", each) for each in others)])


def test_a_hybrid_search_has_each_point_once(team: Team) -> None:
    hits = team["one", "ann"].hybrid_search(NAME, vector=VECTOR, text="gap", text_field="name", top_k=50)
    assert ids(hits) == sorted([*OWN, shared_id("bob", ID)])


def test_a_collection_counts_the_callers_own_points(team: Team) -> None:
    assert {client.get_collection(NAME)["points"] for client in team.values()} == {3}


ATTACKS: dict[str, tuple[str, Callable[[VectorClient], Any]]] = {
    "write under a shared point's id": (
        "PERMISSION_DENIED",
        lambda client: client.upsert(NAME, playbook(shared_id("bob", ID), is_public=True)),
    ),
    "write as its user": (
        "PERMISSION_DENIED",
        lambda client: client.upsert(NAME, playbook(ID, user_id="bob", is_public=True)),
    ),
    "write for another organisation": (
        "PERMISSION_DENIED",
        lambda client: client.upsert(NAME, playbook(ID, org_id="two", is_public=True)),
    ),
    "delete it by its id": ("PERMISSION_DENIED", lambda client: client.delete(NAME, shared_id("bob", ID))),
    "delete several": (
        "PERMISSION_DENIED",
        lambda client: client.batch_delete(NAME, ids=["none", shared_id("bob", ID)]),
    ),
    "share with a text": ("INVALID_ARGUMENT", lambda client: client.upsert(NAME, playbook("x", is_public="true"))),
    "share with a number": ("INVALID_ARGUMENT", lambda client: client.upsert(NAME, playbook("x", is_public=1))),
    "share with a list": ("INVALID_ARGUMENT", lambda client: client.upsert(NAME, playbook("x", is_public=[True]))),
    "share with nothing": ("INVALID_ARGUMENT", lambda client: client.upsert(NAME, playbook("x", is_public=None))),
}


@pytest.mark.requirement("S2-04")
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_shared_is_never_written_by_others(team: Team, attack: str) -> None:
    kind, ask = ATTACKS[attack]
    with pytest.raises(ApiError) as refused:
        ask(team["one", "ann"])
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    "condition",
    [
        {"match": {"user_id": "bob"}},
        {"match": {"org_id": "two"}},
        {"match": {"is_public": True, "user_id": ["bob"]}},
        {"should": [{"match": {"owner": "one/bob"}}, {"match": {"owner": "two/ann"}}]},
        {"must_not": [{"match": {"user_id": "ann"}}]},
    ],
)
def test_a_deletion_by_a_filter_reaches_nothing_that_is_shared(team: Team, condition: dict[str, Any]) -> None:
    assert team["one", "ann"].batch_delete(NAME, filter=condition) == 0
    for client in team.values():
        assert client.get_collection(NAME)["points"] == 3


@pytest.mark.parametrize(
    "given_id",
    [
        shared_id("bob", "private"),
        shared_id("bob", "no"),
        shared_id("one/bob", ID),
        f"shared:bob:{ID}",
        "shared:bob:opening+range",
        "shared:%62ob:opening%20range",
        "shared:bob",
        "shared::" + ID,
        f"shared:bob:opening%20range:{ID}",
        shared_id("bob", shared_id("bob", ID)),
    ],
)
def test_no_other_id_names_a_point_of_another_user(team: Team, given_id: str) -> None:
    assert team["one", "ann"].get(NAME, [given_id]) == []


def test_what_another_user_changes_is_seen_at_once(team: Team, gateway: Gateway) -> None:
    """Through the cache: each answer was kept before the other user's write."""
    ann, bob = team["one", "ann"], team["one", "bob"]
    shared = shared_id("bob", "changing")

    def seen() -> Any:
        hits = ann.search(NAME, vector=VECTOR, top_k=50)
        assert ids(hits) == ids(ann.search(NAME, vector=VECTOR, top_k=50))
        searched = next((hit["payload"]["version"] for hit in hits if hit["id"] == shared), None)
        got = next((point["payload"]["version"] for point in ann.get(NAME, [shared])), None)
        assert searched == got
        return got

    assert seen() is None
    for version, is_public in (("1", True), ("2", True), ("3", False), ("4", True)):
        bob.upsert(NAME, playbook("changing", version=version, is_public=is_public))
        assert seen() == (version if is_public else None)
    bob.delete(NAME, "changing")
    assert seen() is None


def test_users_of_one_scope_get_their_own_answer_of_a_preset(gateway: Gateway, organisation: str) -> None:
    """A preset that names its caller, in a collection of the whole organisation: no cached answer of another's."""
    clients = {user: connect(gateway, "rest", organisation, user) for user in USERS}
    for user, client in clients.items():
        client.upsert("embeddings", {"id": user, "vector": VECTOR, "payload": {"author": user}})
    for _ in range(2):
        for user, client in clients.items():
            assert ids(client.search("embeddings", vector=VECTOR, preset="mine")) == [user]
    for client in clients.values():
        client.close()


def test_a_jobs_item_is_no_shared_point(gateway: Gateway, organisation: str) -> None:
    with gateway.http(organisation, "ann") as http:
        body = {"items": [{"id": shared_id("bob", ID), "text": "x", "payload": {}}]}
        answer = http.post("/v1/collections/playbooks/embed", json=body)
    assert answer.status_code == 403


TENANCY = {NAME: SharedCollection(NAME, NAME, user_field="user_id", public_field="is_public")}


def tenant(organisation: str, user: str) -> Tenant:
    return tenant_of(Caller(organisation, user, frozenset(Scope)), NAME, TENANCY)


NAMES = st.sampled_from(["a", "b", "a:b", "shared:a:b", "%61", "ä", "a b"])


@given(NAMES, NAMES, NAMES)
def test_a_reader_names_each_point_by_one_id_and_finds_it_by_that(owner: str, reader: str, given_id: str) -> None:
    """Also one that was written under such an id before the collection's file let users share."""
    stored = {"org_id": "org", "user_id": owner, "is_public": True}
    shown = tenant("org", reader).shown_id(given_id, stored)
    assert tenant("org", reader).readable_id(shown, "ids.0") == point_id(tenant("org", owner), given_id)
    assert tenant("other", reader).readable_id(shown, "ids.0") != point_id(tenant("org", owner), given_id)
    assert not tenant("other", owner).reads(stored)
    assert tenant("org", reader).reads({**stored, "is_public": "true"}) == (owner == reader)


@given(NAMES, NAMES)
def test_no_id_is_written_that_others_read_as_a_shared_one(user: str, given_id: str) -> None:
    try:
        tenant("org", "me").own_id(given_id, "ids.0")
    except GatewayError:
        assert given_id.startswith("shared:")
    with pytest.raises(GatewayError):
        tenant("org", "me").own_id(shared_id(user, given_id), "ids.0")
