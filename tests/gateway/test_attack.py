"""An organisation that tries to reach another's points by names, ids and filters: ten thousand of each, none succeeds.

Tokens are in test_isolation.py. What the protocols add nothing to is tried on the core; some of each go through them.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import GatewayError
from plinth.gateway.filters import Filter
from plinth.gateway.qdrant_filters import qdrant_filter
from plinth.gateway.tenancy import ID_FIELD, SharedCollection, collection_name, parse_collection_name, tenant_of
from tests.gateway.clients import PROTOCOLS, ApiError, connect
from tests.gateway.conftest import Gateway

TRIES = 10_000
AS_IT_IS = "/%.~:"
SHARED = {
    "embeddings": SharedCollection("embeddings", "embeddings"),
    "trades": SharedCollection("trades", "trades", user_field="user_id"),
    "playbooks": SharedCollection("playbooks", "playbooks", user_field="user_id", public_field="is_public"),
}
# Whose points are sought, by whom, and neighbours whose names come near.
VICTIM = Caller("victim-1", "ann", frozenset(Scope))
ATTACKERS = [
    Caller(organisation, user, frozenset(Scope))
    for organisation in ("victim", "victim_1", "victim-1-", "victim-11", "VICTIM-1", "1")
    for user in ("ann", "victim-1", "victim-1:ann", "shared:ann")
]
COLLECTIONS = ["docs", "docs_1", "1_docs", "a", "1"]
LOOK_ALIKES = ["\u200b", "\u0430", "\uff44", "\u0131", "\u212a", "\u00e9", "e\u0301"]
SIGNS = [*"ad1_-.~/%\\: \0\n", *LOOK_ALIKES, "..", "%2f", "%2e", "docs"]
PIECES = ["victim-1", "victim_1", "victim", "docs", "ann", "segment:a:b:m:v", "shared:", "org_id", "embeddings", ""]


def text(rng: random.Random) -> str:
    """One that is near to a name of the victim's, or none at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(["", ".", "..", "a" * 255, "é" * 127, "docs" * 64])
    parts = [rng.choice(PIECES if rng.random() < 0.6 else SIGNS) for _ in range(rng.randrange(1, 5))]
    return rng.choice(["", "_", "-", ":", "~", "/"]).join(parts)[:255]


def test_no_name_is_a_collection_of_another_organisation() -> None:
    rng = random.Random(1)
    theirs = {collection_name(VICTIM.organisation, name) for name in COLLECTIONS}
    reached = accepted = 0
    for at in range(TRIES):
        attacker = rng.choice(ATTACKERS)
        # Every fourth is what Qdrant itself calls a collection of theirs, or a part of it.
        physical = rng.choice(sorted(theirs))
        name = physical[rng.randrange(len(physical)) :] if at % 4 == 0 else text(rng)
        try:
            tenant = tenant_of(attacker, name, SHARED)
        except GatewayError:
            continue
        accepted += 1
        reached += tenant.collection in theirs
        if tenant.shared is None:
            assert parse_collection_name(tenant.collection) == (attacker.organisation, name)
    assert reached == 0
    assert accepted > TRIES / 20


def test_no_id_is_a_point_of_another_organisation_or_user() -> None:
    rng = random.Random(2)
    given = ["1", "doc", "victim-1", "ann:doc", "segment:a:b:m:v", "shared:ann:doc", *(text(rng) for _ in range(50))]
    theirs: set[str] = set()
    for name in SHARED:
        tenant = tenant_of(VICTIM, name, SHARED)
        for one in given:
            try:
                theirs.add(tenant.own_id(one, "id"))
            except GatewayError:
                continue
    assert len(theirs) > 60
    reached = 0
    for at in range(TRIES):
        name, attacker = rng.choice(list(SHARED)), rng.choice(ATTACKERS)
        tenant = tenant_of(attacker, name, SHARED)
        # The victim's own ids, what Qdrant calls them, and all kinds of texts.
        tried = (rng.choice(given), rng.choice(sorted(theirs)), text(rng))[at % 3]
        for identify in (tenant.own_id, tenant.readable_id):
            try:
                reached += identify(tried, "id") in theirs
            except GatewayError:
                continue
    assert reached == 0


def filter_content(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    """One that asks for what is another's, in any form that a filter has."""
    fields = ["org_id", "user_id", "is_public", ID_FIELD, "colour", "parts[].org_id", '"org_id"', text(rng)]
    values: list[Any] = ["victim-1", "ann", "doc", True, 1, ["victim-1", "victim"], [True, 1, "ann"], text(rng)]
    content: dict[str, Any] = {}
    for _ in range(rng.randrange(1, 3)):
        clause = rng.choice(["match", "range", "is_empty", "nested", "must", "should", "must_not"])
        if clause == "match":
            content[clause] = {rng.choice(fields): rng.choice(values) for _ in range(rng.randrange(1, 3))}
        elif clause == "range":
            content[clause] = {rng.choice(fields): {rng.choice(["gte", "lt"]): rng.choice([0, 1.5, "2025-01-01"])}}
        elif clause == "is_empty":
            content[clause] = [rng.choice(fields)]
        elif depth:
            inner = filter_content(rng, depth - 1)
            key = rng.choice(["parts", "org_id"])
            content[clause] = [{"key": key, "filter": inner}] if clause == "nested" else [inner, {}]
    return content


def meets(payload: dict[str, Any], condition: dict[str, Any], sure: bool = True) -> bool:
    """Whether a point may meet a filter of Qdrant's; what this does not know is met, or not met within `must_not`."""
    if "key" in condition:
        if "match" not in condition or ("value" not in condition["match"] and "any" not in condition["match"]):
            return sure
        match = condition["match"]
        if condition["key"] not in payload:
            return False
        value, options = payload[condition["key"]], match.get("any", [match.get("value")])
        return any(type(option) is type(value) and option == value for option in options)
    if not condition.keys() <= {"must", "should", "must_not"}:
        return sure
    return (
        all(meets(payload, inner, sure) for inner in condition.get("must", []))
        and (not condition.get("should") or any(meets(payload, inner, sure) for inner in condition["should"]))
        and not any(meets(payload, inner, not sure) for inner in condition.get("must_not", []))
    )


def test_no_filter_finds_a_point_of_another_organisation_or_user() -> None:
    rng = random.Random(3)
    sought = []
    for name in SHARED:
        tenant = tenant_of(VICTIM, name, SHARED)
        payload = {"colour": "red", "parts": [{"org_id": "victim"}]}
        sought.append((name, tenant.payload("doc", payload, "payload")))
        if tenant.public_field:
            sought.append((name, tenant.payload("doc", {**payload, tenant.public_field: True}, "payload")))
    reached = tried = alone = 0
    while tried < TRIES:
        attacker, (name, payload) = rng.choice(ATTACKERS), rng.choice(sought)
        try:
            condition = qdrant_filter(Filter.model_validate(filter_content(rng)))
        except ValidationError:
            continue
        tried += 1
        tenant = tenant_of(attacker, name, SHARED)
        alone += meets(payload, condition)
        within = [tenant.filter(condition), tenant.read_filter(condition)]
        reached += any(filter is None or meets(payload, filter) for filter in within)
        reached += tenant.reads(payload)
    assert reached == 0
    # Without the tenant around it many of them would have.
    assert alone > TRIES / 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_through_the_doors_nothing_of_another_organisation_is_seen_or_touched(gateway: Gateway, protocol: str) -> None:
    rng = random.Random(4)
    secret = f"secret-{uuid.uuid4().hex}"
    victim = connect(gateway, protocol, f"victim-{uuid.uuid4().hex[:6]}-1", "ann")
    points = [{"id": n, "vector": [1.0] * 384, "payload": {"colour": secret}} for n in ("1", "doc", "segment:a:b:m:v")]
    trade = {"id": "doc", "vector": [1.0] * 4, "payload": {"symbol": secret}}
    victim.create_collection("docs", 4, "Cosine")
    victim.batch_upsert("embeddings", points)
    for name in ("docs", "trades"):
        victim.upsert(name, trade)
    attacker = connect(gateway, protocol, "victim-1", "ann")
    size = {"trades": 4, "docs": 4}
    kinds: dict[str, Callable[[str], Any]] = {
        "search": lambda name: attacker.search(
            name, vector=[1.0] * size.get(name, 384), top_k=100, filter=filter_content(rng)
        ),
        "scroll": lambda name: attacker.scroll(name, filter=filter_content(rng)),
        "get": lambda name: attacker.get(name, [rng.choice(["1", "doc", "segment:a:b:m:v", text(rng)])]),
        "delete": lambda name: attacker.delete(name, rng.choice(["1", "doc", quote(text(rng), safe=AS_IT_IS)])),
        "batch_delete": lambda name: attacker.batch_delete(name, filter=filter_content(rng)),
        "get_collection": lambda name: attacker.get_collection(name),
        "delete_collection": lambda name: attacker.delete_collection(name),
    }
    answers, refusals = [], []
    for _ in range(150):
        name = rng.choice(["embeddings", "trades", "docs", "docs", text(rng)])
        try:
            # What no address can hold is quoted, the rest is sent as it is.
            answers.append(kinds[rng.choice(list(kinds))](quote(name, safe=AS_IT_IS) if protocol == "rest" else name))
        except ApiError as error:
            refusals.append(error)
    assert len(answers) > 30
    assert {error.kind for error in refusals} <= {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
    assert secret not in repr(answers) + repr([(error.message, error.fields) for error in refusals])
    assert len(victim.get("embeddings", [str(point["id"]) for point in points])) == len(points)
    for name in ("docs", "trades"):
        assert [point["payload"]["symbol"] for point in victim.get(name, ["doc"])] == [secret]
    victim.delete_collection("docs")
