"""Reading, planning and applying against a server in memory: for any files and any server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.errors import UserError
from plinth.qdrant.apply import apply, converge
from plinth.qdrant.client import QdrantError, collection_path
from plinth.qdrant.plan import CreateCollection, SwitchAliases, plan
from plinth.qdrant.render import render, to_json
from plinth.qdrant.server_state import read
from plinth.qdrant.spec import CollectionSpec
from tests.unit.qdrant_server import InMemoryQdrant

NAMES = ("a_v1", "b_v1", "c_v1")
# b_v1 is a name that an alias of a server can have too.
ALIASES = ("x", "y", "b_v1")


def optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


INDEX = st.one_of(
    st.sampled_from(["datetime", "bool", "geo"]),
    st.builds(lambda more: {"type": "keyword", **more}, optional(is_tenant=st.booleans(), on_disk=st.booleans())),
    st.builds(lambda more: {"type": "integer", **more}, optional(lookup=st.booleans(), range=st.booleans())),
    st.builds(lambda more: {"type": "text", **more}, optional(tokenizer=st.just("word"), lowercase=st.booleans())),
)
QUANTIZATION = st.one_of(
    st.builds(
        lambda more: {"scalar": {"type": "int8", **more}}, optional(quantile=st.just(0.99), always_ram=st.booleans())
    ),
    st.sampled_from(["x4", "x16"]).map(lambda x: {"product": {"compression": x}}),
    st.just({"binary": {}}),
)
VECTORS = st.fixed_dictionaries(
    {"size": st.sampled_from([8, 16]), "distance": st.sampled_from(["Cosine", "Dot"])},
    optional={
        "on_disk": st.booleans(),
        "datatype": st.sampled_from(["float32", "float16"]),
        "multivector_config": st.just({"comparator": "max_sim"}),
    },
)
BODY = st.fixed_dictionaries(
    {"vectors": VECTORS},
    optional={
        "hnsw_config": optional(m=st.sampled_from([16, 32]), payload_m=st.sampled_from([8, 16]), on_disk=st.booleans()),
        "optimizers_config": optional(deleted_threshold=st.sampled_from([0.1, 0.2, 0.3])),
        "wal_config": optional(wal_capacity_mb=st.sampled_from([16, 32])),
        "quantization_config": QUANTIZATION,
        "strict_mode_config": optional(enabled=st.booleans(), max_query_limit=st.sampled_from([10, 100])),
        "metadata": st.dictionaries(st.sampled_from("pq"), st.integers(0, 2), max_size=2),
        "sparse_vectors": st.just({"s": {"modifier": "idf"}}),
        "replication_factor": st.sampled_from([1, 2]),
        "on_disk_payload": st.booleans(),
        "payload_indexes": st.dictionaries(st.sampled_from(["t", "u", "v.w"]), INDEX, max_size=3),
    },
)


@st.composite
def files(draw: st.DrawFn) -> list[CollectionSpec]:
    aliases = draw(st.permutations(["x", "y", "z"]))
    specs = []
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))):
        body = draw(BODY)
        tenants = [f for f, i in body.get("payload_indexes", {}).items() if isinstance(i, dict) and i.get("is_tenant")]
        if tenants and draw(st.booleans()):
            body = {**body, "hnsw_config": {"m": 0, "payload_m": 16}, "tenant": tenants[0]}
        specs.append(CollectionSpec.model_validate({**body, "name": name, "aliases": aliases[number : number + 1]}))
    return specs


@st.composite
def servers(draw: st.DrawFn, declared: list[CollectionSpec]) -> InMemoryQdrant:
    """A server that somebody else has used, or that this project has made and somebody has changed."""
    server = InMemoryQdrant()
    apply(server, plan(draw(st.sampled_from([[], declared[:1], declared])), read(server)))
    for name in draw(st.lists(st.sampled_from([*NAMES, "other"]), unique=True, max_size=4)):
        if name not in server.stored:
            body = draw(BODY)
            indexes = body.pop("payload_indexes", {})
            server.call("PUT", collection_path(name), body)
            for field, schema in indexes.items():
                schema = {"type": schema} if isinstance(schema, str) else schema
                server.call("PUT", f"{collection_path(name)}/index", {"field_name": field, "field_schema": schema})
        elif draw(st.booleans()):
            server.call(
                "PATCH", collection_path(name), {"hnsw_config": {"ef_construct": 64}, "quantization_config": "Disabled"}
            )
    for name in server.stored:
        server.stored[name]["points_count"] = draw(st.integers(0, 1))
        if draw(st.integers(0, 9)) == 0:
            server.stored[name]["config"]["params"]["vectors"] = {"title": {"size": 8, "distance": "Cosine"}}
    for alias in draw(st.lists(st.sampled_from(ALIASES), unique=True)):
        if server.stored and alias not in server.stored:
            server.pointed[alias] = draw(st.sampled_from(sorted(server.stored)))
    server.asked.clear()
    return server


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_applying_the_plan_leaves_nothing_to_plan(data: st.DataObject) -> None:
    wanted = data.draw(files())
    server = data.draw(servers(wanted))
    before = copy.deepcopy(server.stored)
    todo = plan(wanted, read(server))
    assert plan(wanted, read(server)) == todo
    assert render(plan(wanted, read(server))) == render(todo)
    assert to_json(todo)["in_sync"] == todo.empty
    if todo.refusals:
        with pytest.raises(UserError):
            apply(server, todo)
        assert server.stored == before, "a refused plan must not be begun"
    refused = {refusal.collection for refusal in todo.refusals}
    reachable = [spec for spec in wanted if spec.name not in refused]
    apply(server, plan(reachable, read(server)))
    assert plan(reachable, read(server)).empty
    for spec in reachable:
        converge(server, spec)
    assert not [asked for asked in server.asked if asked[0] == "DELETE" and "/index/" not in asked[1]]
    assert len([asked for asked in server.asked if asked[1] == "/collections/aliases"]) <= 1
    assert {name: server.stored[name] for name in before if name in refused | set(todo.unmanaged)} == {
        name: was for name, was in before.items() if name in refused | set(todo.unmanaged)
    }


@given(data=st.data())
@settings(deadline=None)
def test_a_plan_touches_what_is_declared_and_not_refused(data: st.DataObject) -> None:
    wanted = data.draw(files())
    server = data.draw(servers(wanted))
    todo = plan(wanted, read(server))
    declared = {spec.name for spec in wanted}
    refused = {refusal.collection for refusal in todo.refusals}
    assert {step.collection for step in todo.steps if not isinstance(step, SwitchAliases)} <= declared - refused
    assert set(todo.unmanaged) == set(server.stored) - declared
    for refusal in todo.refusals:
        assert refusal.sentence.startswith(refusal.collection)
        assert refusal.sentence.endswith(".")
        assert "file" in refusal.sentence or "move" in refusal.sentence


def one(**values: Any) -> CollectionSpec:
    return CollectionSpec.model_validate({"name": "a_v1", "vectors": {"size": 8, "distance": "Cosine"}, **values})


def test_a_collection_with_named_vectors_is_not_taken_for_one_without() -> None:
    server = InMemoryQdrant()
    server.call("PUT", "/collections/a_v1", {"vectors": {"title": {"size": 8, "distance": "Cosine"}}})
    (refusal,) = plan([one()], read(server)).refusals
    assert refusal.sentence.startswith("a_v1: vectors is named title and the file wants unnamed;")
    assert "a_v2" in refusal.sentence


def test_a_name_that_is_an_alias_is_refused_before_anything_is_made() -> None:
    server = InMemoryQdrant()
    converge(server, one(name="old"))
    server.pointed["a_v1"] = "old"
    todo = plan([one(aliases=["a"]), one(name="b_v1")], read(server))
    assert [refusal.collection for refusal in todo.refusals] == ["a_v1"]
    assert [type(step) for step in todo.steps] == [CreateCollection]
    with pytest.raises(UserError, match="an alias of old has this name"):
        apply(server, todo)
    assert set(server.stored) == {"old"}


def test_indexes_are_made_before_the_graph_is_rebuilt() -> None:
    server = InMemoryQdrant()
    converge(server, one())
    server.asked.clear()
    converge(server, one(hnsw_config={"payload_m": 16}, payload_indexes={"symbol": "keyword"}))
    assert [method for method, _ in server.asked] == ["PUT", "PATCH"]


@pytest.mark.parametrize(
    ("have", "want", "key"),
    [
        ({}, {"wal_config": {"wal_capacity_mb": 16}}, "wal_config.wal_capacity_mb"),
        ({}, {"sparse_vectors": {"s": {}}}, "sparse_vectors.s"),
        ({}, {"vectors": {"size": 8, "distance": "Cosine", "datatype": "float16"}}, "vectors.datatype"),
        (
            {"vectors": {"size": 8, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}}},
            {},
            "vectors.multivector_config",
        ),
        ({}, {"sharding_method": "custom"}, "sharding_method"),
    ],
)
def test_what_is_fixed_when_a_collection_is_made_is_refused_later(
    have: dict[str, Any], want: dict[str, Any], key: str
) -> None:
    server = InMemoryQdrant()
    converge(server, one(**have))
    server.asked.clear()
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        converge(server, one(**want))
    assert server.asked == []


def test_a_create_that_lost_a_race_is_read_and_planned_again() -> None:
    class Racing(InMemoryQdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            if (method, path) == ("PUT", "/collections/a_v1") and not self.stored:
                super().call(method, path, {"vectors": {"size": 8, "distance": "Cosine"}})
            return super().call(method, path, body)

    server = Racing()
    converge(server, one(hnsw_config={"m": 32}))
    assert server.stored["a_v1"]["config"]["hnsw_config"]["m"] == 32


def test_a_value_that_the_server_does_not_take_is_a_sentence() -> None:
    class Older(InMemoryQdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            return True if method == "PATCH" else super().call(method, path, body)

    server = Older()
    converge(server, one())
    with pytest.raises(UserError, match=r"a_v1: the server at .* did not take ~ a_v1 hnsw_config.m 16 -> 32"):
        converge(server, one(hnsw_config={"m": 32}))


def test_an_error_of_the_server_is_not_swallowed_by_a_create() -> None:
    class Full(InMemoryQdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            if method == "PUT":
                raise QdrantError("No space left on device", 500)
            return super().call(method, path, body)

    with pytest.raises(QdrantError, match="No space left"):
        converge(Full(), one())
