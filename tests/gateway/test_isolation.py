"""Two organisations in the same collections: whatever one does, the other's points are neither seen nor touched."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import uuid
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from plinth.gateway.errors import GatewayError
from plinth.gateway.tokens import SharedKey, TokenVerifier, issue_token
from tests.gateway.conftest import SIGNING_KEY, Gateway

IDS = st.sampled_from(["1", "doc", "доц", "a/b", "550e8400-e29b-41d4-a716-446655440000", "segment:a:b:m:v", "x" * 100])
VALUES = st.sampled_from(["red", "green"])
SIDES = st.sampled_from([0, 1])
# A shared collection, one of each organisation's under the same name, and one of each user's.
NAMES = st.sampled_from(["embeddings", "own", "trades"])
SIZES = {"embeddings": 384, "own": 4, "trades": 4}


def vector(size: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(-1, 1) for _ in range(size)]


class TwoOrganisations(RuleBasedStateMachine):
    """What each has is kept in ``points``, and compared with what the gateway shows it."""

    gateway: Gateway

    @initialize()
    def begin(self) -> None:
        names = [f"iso-{uuid.uuid4().hex[:8]}", f"iso_{uuid.uuid4().hex[:8]}"]
        # Of one name, in two organisations.
        self.http = [self.gateway.http(name, "user") for name in names]
        self.points: list[dict[str, dict[str, Any]]] = [{"embeddings": {}, "own": {}, "trades": {}} for _ in names]
        for http in self.http:
            http.post("/v1/collections", json={"name": "own", "dimension": 4, "distance": "Cosine"}).raise_for_status()

    def teardown(self) -> None:
        for http in getattr(self, "http", []):
            http.delete("/v1/collections/own")
            for name in ("embeddings", "trades"):
                http.post(f"/v1/collections/{name}/points/delete", json={"filter": {}})
            http.close()

    @rule(side=SIDES, name=NAMES, given=IDS, colour=VALUES, seed=st.integers(0, 5))
    def upsert(self, side: int, name: str, given: str, colour: str, seed: int) -> None:
        point = {"id": given, "vector": vector(SIZES[name], seed), "payload": {"colour": colour, "side": side}}
        self.http[side].put(f"/v1/collections/{name}/points", json={"points": [point]}).raise_for_status()
        self.points[side][name][given] = colour

    @rule(side=SIDES, name=NAMES, given=IDS)
    def delete(self, side: int, name: str, given: str) -> None:
        self.http[side].post(f"/v1/collections/{name}/points/delete", json={"ids": [given]}).raise_for_status()
        self.points[side][name].pop(given, None)

    @rule(side=SIDES, name=NAMES, colour=VALUES)
    def delete_by_filter(self, side: int, name: str, colour: str) -> None:
        condition = {"should": [{"match": {"colour": colour}}, {"match": {"org_id": "someone-else"}}]}
        answer = self.http[side].post(f"/v1/collections/{name}/points/delete", json={"filter": condition})
        answer.raise_for_status()
        kept = {given: other for given, other in self.points[side][name].items() if other != colour}
        self.points[side][name] = kept

    @rule(side=SIDES, name=NAMES, seed=st.integers(0, 5))
    def search(self, side: int, name: str, seed: int) -> None:
        # Asking for the other side's, as widely as a filter goes.
        condition = {"must_not": [{"match": {"side": 7}}]}
        body = {"vector": vector(SIZES[name], seed), "top_k": 100, "filter": condition}
        hits = self.http[side].post(f"/v1/collections/{name}/search", json=body).raise_for_status().json()["hits"]
        assert {hit["id"]: hit["payload"]["colour"] for hit in hits} == self.points[side][name]
        assert all(hit["payload"]["side"] == side for hit in hits)

    @rule(side=SIDES, name=NAMES)
    def get_and_scroll(self, side: int, name: str) -> None:
        other = self.points[1 - side][name]
        ids = [*self.points[side][name], *other] or ["none"]
        got = self.http[side].post(f"/v1/collections/{name}/points/get", json={"ids": ids}).raise_for_status()
        assert {point["id"] for point in got.json()["points"]} == set(self.points[side][name])
        page = self.http[side].post(f"/v1/collections/{name}/points/scroll", json={}).raise_for_status().json()
        assert {point["id"] for point in page["points"]} == set(self.points[side][name])

    @invariant()
    def counts_are_their_own(self) -> None:
        for http, points in zip(getattr(self, "http", []), getattr(self, "points", []), strict=True):
            count = http.get("/v1/collections/embeddings").raise_for_status().json()["points"]
            assert count == len(points["embeddings"])


def test_two_organisations_never_meet(gateway: Gateway) -> None:
    TwoOrganisations.gateway = gateway
    run_state_machine_as_test(
        TwoOrganisations,
        settings=settings(
            max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_an_organisation_reaches_no_collection_of_another_by_any_name(gateway: Gateway) -> None:
    """Names as Qdrant has them, and names that come near."""
    with gateway.http("left-1") as left, gateway.http("left") as near, gateway.http("right") as right:
        for http, name in ((left, "secret"), (right, "secret")):
            body = {"name": name, "dimension": 2, "distance": "Dot"}
            http.post("/v1/collections", json=body).raise_for_status()
        assert left.get("/v1/collections").json()["collections"] == ["embeddings", "playbooks", "secret", "trades"]
        for http, names in (
            (near, ["1_secret", "1-secret", "secret", "-1_secret", "left_1_secret"]),
            (right, ["left_1_secret", "left-1_secret", "right_secret", "secret~0", "../left_1_secret"]),
        ):
            for name in names:
                answer = http.get(f"/v1/collections/{name}")
                assert answer.status_code in (400, 404), name
                assert http.delete(f"/v1/collections/{name}").status_code in (400, 404), name
        for http in (left, right):
            http.delete("/v1/collections/secret").raise_for_status()


def test_no_change_of_a_token_makes_another_one() -> None:
    """Ten thousand tries at a token of another organisation: signs changed, claims exchanged, parts of two joined."""
    rng = random.Random(11)
    verifier = TokenVerifier(SharedKey(SIGNING_KEY))
    mine, other = (issue_token(SIGNING_KEY, name, "u") for name in ("mine", "other"))

    def changed() -> str:
        header, claims, signature = mine.split(".")
        kind = rng.randrange(4)
        if kind == 0:
            at, text = rng.randrange(len(mine)), list(mine)
            text[at] = rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=")
            return "".join(text)
        if kind == 1:
            content = json.loads(base64.urlsafe_b64decode(claims + "=="))
            content["org_id"] = rng.choice(["other", "mine ", "MINE", f"org{rng.randrange(999)}"])
            return f"{header}.{base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip('=')}.{signature}"
        if kind == 2:
            return ".".join(rng.choice(parts) for parts in zip(mine.split("."), other.split("."), strict=True))
        return mine[: rng.randrange(len(mine))]

    async def attack() -> int:
        accepted = 0
        for _ in range(10_000):
            token = changed()
            try:
                caller = await verifier.caller(f"Bearer {token}")
            except GatewayError:
                continue
            # What is accepted is one of the two that were issued, and says what it was issued for.
            assert caller.organisation == ("mine" if token.split(".")[1] == mine.split(".")[1] else "other")
            accepted += caller.organisation == "other" and token != other
        return accepted

    assert asyncio.run(attack()) == 0


@pytest.mark.parametrize("name", ["embeddings", "trades"])
def test_a_point_is_never_written_for_somebody_else(gateway: Gateway, organisation: str, name: str) -> None:
    with gateway.http(organisation, "me") as http:
        for key, value in (("org_id", "other"), ("user_id", "other"), ("_plinth_id", "x"), ("org_id", None)):
            point = {"id": "1", "vector": vector(SIZES[name], 1), "payload": {key: value}}
            answer = http.put(f"/v1/collections/{name}/points", json={"points": [point]})
            own = name == "embeddings" and key == "user_id"
            assert answer.status_code == (200 if own else 400 if key == "_plinth_id" else 403), (key, answer.text)


def test_users_of_one_organisation_see_their_own_trades(gateway: Gateway, organisation: str) -> None:
    clients = {user: gateway.http(organisation, user) for user in ("ann", "bob")}
    for user, http in clients.items():
        point = {"id": "1", "vector": [1, 0, 0, 0], "payload": {"symbol": user, "closed_at": "2025-06-01T00:00:00Z"}}
        http.put("/v1/collections/trades/points", json={"points": [point]}).raise_for_status()
    for user, http in clients.items():
        body: dict[str, Any] = {"vector": [1, 0, 0, 0], "preset": "closed", "parameters": {"since": "2025-01-01"}}
        hits = _hits(http, body)
        assert [hit["payload"]["symbol"] for hit in hits] == [user]
        assert _hits(http, body | {"parameters": {"symbol": "other"}}) == []
        assert _hits(http, body | {"parameters": {"until": "2025-01-01"}}) == []
        http.close()


def _hits(http: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = http.post("/v1/collections/trades/search", json=body).raise_for_status().json()["hits"]
    return hits
