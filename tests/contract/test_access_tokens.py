"""Tokens that open a part (`service.jwt_rbac`): what each opens, on both engines alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest

from tests.conftest import ENGINES, KEY, READ_ONLY_KEY, Server, make_server

ALT_KEY = "another-full-key-for-tests-of-32-bytes-and-more"
MINE, OTHER = "mine", "other"
POINT = {"points": [{"id": 1, "vector": [1.0, 0.0], "payload": {"a": 1}}]}
QUERY: dict[str, Any] = {"query": [1.0, 0.0], "limit": 1}
Ask = Callable[..., int]


@pytest.fixture(scope="module", params=ENGINES)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes tokens, with a collection of ours and another one."""
    server = make_server(
        request.param, tmp_path_factory.mktemp(f"tokens-{request.param}"), jwt_rbac=True, alt_api_key=ALT_KEY
    )
    server.start()
    with httpx.Client(base_url=server.url, headers={"api-key": KEY}) as client:
        for name in (MINE, OTHER):
            client.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
            client.put(f"/collections/{name}/points?wait=true", json=POINT).raise_for_status()
    yield server
    server.stop()


@pytest.fixture
def ask(guarded: Server) -> Ask:
    """The status of a request with what is given as the key."""

    def status(given: str, method: str, path: str, body: Any = None, *, header: str = "api-key") -> int:
        value = f"Bearer {given}" if header == "authorization" else given
        return httpx.request(method, f"{guarded.url}{path}", json=body, headers={header: value}).status_code

    return status


def signed(access: Any = None, key: str = KEY, **claims: Any) -> str:
    given = {} if access is None else {"access": access}
    return jwt.encode({"exp": int(time.time()) + 60, **given, **claims}, key, "HS256")


def opens(collection: str, level: str) -> list[dict[str, str]]:
    return [{"collection": collection, "access": level}]


READS: list[tuple[str, str, Any]] = [
    ("GET", "/collections/{}", None),
    ("GET", "/collections/{}/points/1", None),
    ("POST", "/collections/{}/points", {"ids": [1]}),
    ("POST", "/collections/{}/points/query", QUERY),
    ("POST", "/collections/{}/points/query/batch", {"searches": [QUERY]}),
    ("POST", "/collections/{}/points/scroll", {}),
    ("POST", "/collections/{}/points/count", {}),
]
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/collections/{}/points?wait=true", POINT),
    ("POST", "/collections/{}/points/delete?wait=true", {"points": [7]}),
    ("POST", "/collections/{}/points/payload?wait=true", {"payload": {"b": 1}, "points": [1]}),
]
INDEX = ("PUT", "/collections/{}/index?wait=true", {"field_name": "a", "field_schema": "integer"})
MANAGES: list[tuple[str, str, Any]] = [
    ("PUT", "/collections/new", {"vectors": {"size": 2, "distance": "Dot"}}),
    ("PATCH", "/collections/{}", {"optimizers_config": {"indexing_threshold": 1000}}),
    ("DELETE", "/collections/{}", None),
    ("POST", "/collections/aliases", {"actions": []}),
]


@pytest.mark.parametrize("level", ["r", "prw", "rw"])
def test_a_token_of_a_collection_opens_it_as_far_as_it_says_and_nothing_else(ask: Ask, level: str) -> None:
    token = signed(opens(MINE, level))
    requests = {
        **{request[:2]: (request, 200) for request in READS},
        **{request[:2]: (request, 403 if level == "r" else 200) for request in WRITES},
        INDEX[:2]: (INDEX, 200 if level == "rw" else 403),
        **{request[:2]: (request, 403) for request in MANAGES},
    }
    for (method, path, body), status in requests.values():
        assert ask(token, method, path.format(MINE), body) == status, (method, path)
        assert ask(token, method, path.format(OTHER), body) == 403, (method, path)


def test_a_token_of_everything_reads_or_does_everything(ask: Ask) -> None:
    for token, writes in ((signed("r"), 403), (signed("m"), 200), (signed(), 200), (signed("m", ALT_KEY), 200)):
        for method, path, body in READS:
            assert ask(token, method, path.format(MINE), body) == 200, path
        for method, path, body in WRITES:
            assert ask(token, method, path.format(MINE), body) == writes, path
    assert ask(signed("r"), "GET", "/collections/mine", header="authorization") == 200


REFUSED: dict[str, tuple[str, int]] = {
    "signed with another key": (signed("m", "somebody-elses-key-of-32-bytes-and-more"), 403),
    "signed with the key that only reads": (signed("m", READ_ONLY_KEY), 403),
    "expired": (signed("m", exp=int(time.time()) - 60), 403),
    "unsigned": (jwt.encode({"access": "m"}, "", "none"), 401),
    "another algorithm": (jwt.encode({"access": "m"}, KEY, "HS512"), 401),
    "no token": ("somebody-elses-key", 401),
    "a level that is none": (signed(opens(MINE, "all")), 403),
    "everything, by a word that is none": (signed("all"), 403),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_token_of_the_servers_opens_nothing(ask: Ask, name: str) -> None:
    token, status = REFUSED[name]
    for method, path, body in (READS[0], READS[3], WRITES[0]):
        assert ask(token, method, path.format(MINE), body) == status


def test_a_query_reads_no_other_collection_than_the_token_opens(ask: Ask) -> None:
    body = {"query": 1, "limit": 1, "lookup_from": {"collection": OTHER}}
    groups = {**QUERY, "group_by": "a", "with_lookup": OTHER}
    both = [*opens(MINE, "r"), *opens(OTHER, "r")]
    for path, query in (("query", body), ("query/groups", groups)):
        assert ask(signed(both), "POST", f"/collections/{MINE}/points/{path}", query) == 200
        assert ask(signed(opens(MINE, "r")), "POST", f"/collections/{MINE}/points/{path}", query) == 403


def test_an_alias_is_opened_by_its_own_name(ask: Ask) -> None:
    action = {"create_alias": {"collection_name": MINE, "alias_name": "alias"}}
    assert ask(KEY, "POST", "/collections/aliases", {"actions": [action]}) == 200
    assert ask(signed(opens("alias", "r")), "POST", "/collections/alias/points/query", QUERY) == 200
    assert ask(signed(opens("alias", "r")), "POST", f"/collections/{MINE}/points/query", QUERY) == 403
    assert ask(signed(opens(MINE, "r")), "POST", "/collections/alias/points/query", QUERY) == 403


def test_without_jwt_rbac_a_token_is_a_key_that_nobody_knows(server: Server) -> None:
    answer = httpx.get(f"{server.url}/collections", headers={"api-key": signed("m")})
    assert answer.status_code == 401
