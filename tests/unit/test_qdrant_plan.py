"""The plan: whatever the server has, applying the plan leaves nothing to plan, and a refusal touches nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plinth.qdrant.plan import (
    CreateCollection,
    CreateIndex,
    DropIndex,
    Plan,
    SwitchAliases,
    UpdateCollection,
    immutable_changes,
    plan,
    plan_collection,
)
from plinth.qdrant.render import render, to_json
from plinth.qdrant.server_state import Found, FoundCollection
from plinth.qdrant.spec import CollectionSpec

NAMES = ("a_v1", "b_v1", "c_v1")
INDEXES = st.sampled_from(["keyword", "integer", "datetime", "bool"]).map(lambda kind: {"type": kind}) | st.just(
    {"type": "keyword", "is_tenant": True}
)
QUANTIZATION = st.none() | st.fixed_dictionaries(
    {"scalar": st.fixed_dictionaries({"type": st.just("int8"), "always_ram": st.booleans()})}
)


@st.composite
def specs(draw: st.DrawFn) -> CollectionSpec:
    indexes = draw(st.dictionaries(st.sampled_from(["t", "u", "v"]), INDEXES, max_size=3))
    tenants = [field for field, index in indexes.items() if index.get("is_tenant")]
    hnsw: dict[str, Any] = {"m": draw(st.sampled_from([16, 32])), "payload_m": draw(st.sampled_from([None, 16]))}
    if tenants and draw(st.booleans()):
        hnsw = {"m": 0, "payload_m": 16}
    return CollectionSpec.model_validate(
        {
            "name": draw(st.sampled_from(NAMES)),
            "aliases": [],
            "vectors": {"size": draw(st.sampled_from([8, 16])), "distance": draw(st.sampled_from(["Cosine", "Dot"]))},
            "hnsw_config": {key: value for key, value in hnsw.items() if value is not None},
            "optimizers_config": draw(
                st.fixed_dictionaries({}, optional={"deleted_threshold": st.sampled_from([0.1, 0.2])})
            ),
            "quantization_config": draw(QUANTIZATION),
            "payload_indexes": indexes,
            "tenant": tenants[0] if tenants else None,
        }
    )


@st.composite
def wanted_specs(draw: st.DrawFn) -> list[CollectionSpec]:
    found = {spec.name: spec for spec in draw(st.lists(specs(), max_size=3))}
    aliases = iter(draw(st.permutations(["x", "y", "z"])))
    return [spec.model_copy(update={"aliases": (next(aliases),)}) for spec in found.values()]


@st.composite
def servers(draw: st.DrawFn) -> Found:
    collections = {
        spec.name: as_server_has_it(spec, draw(st.integers(0, 2))) for spec in draw(st.lists(specs(), max_size=3))
    }
    pointed = draw(st.dictionaries(st.sampled_from(["x", "y", "q"]), st.sampled_from(NAMES), max_size=3))
    return Found(collections, {alias: name for alias, name in pointed.items() if name in collections})


def as_server_has_it(spec: CollectionSpec, points: int = 0) -> FoundCollection:
    return FoundCollection(
        name=spec.name,
        vectors=spec.vectors.model_dump(exclude_none=True),
        params={"shard_number": 1, "replication_factor": 1, "on_disk_payload": True},
        hnsw={"m": 16, "ef_construct": 100, **spec.hnsw_config.model_dump(exclude_none=True)},
        optimizers={"deleted_threshold": 0.2, **spec.optimizers_config.model_dump(exclude_none=True)},
        quantization=spec.quantization_config.model_dump(exclude_none=True) if spec.quantization_config else None,
        indexes={field: index.model_dump(exclude_none=True) for field, index in spec.payload_indexes.items()},
        points=points,
    )


def carried_out(server: Found, todo: Plan, wanted: list[CollectionSpec]) -> Found:
    """A model of a Qdrant server doing the steps."""
    collections, aliases = dict(server.collections), dict(server.aliases)
    bodies = {spec.name: spec for spec in wanted}
    for step in todo.steps:
        match step:
            case CreateCollection(name, _):
                assert name not in collections
                collections[name] = replace(as_server_has_it(bodies[name]), indexes={})
            case UpdateCollection(name, patch, _):
                was = collections[name]
                quantization = patch.get("quantization_config", was.quantization)
                collections[name] = replace(
                    was,
                    hnsw={**was.hnsw, **patch.get("hnsw_config", {})},
                    optimizers={**was.optimizers, **patch.get("optimizers_config", {})},
                    params={**was.params, **patch.get("params", {})},
                    quantization=None if quantization == "Disabled" else quantization,
                )
            case CreateIndex(name, field, schema):
                assert field not in collections[name].indexes
                collections[name] = replace(
                    collections[name], indexes={**collections[name].indexes, field: dict(schema)}
                )
            case DropIndex(name, field):
                kept = {key: value for key, value in collections[name].indexes.items() if key != field}
                collections[name] = replace(collections[name], indexes=kept)
            case SwitchAliases(point, remove):
                assert set(point.values()) <= set(collections)
                aliases = {alias: name for alias, name in aliases.items() if alias not in remove} | dict(point)
    return Found(collections, aliases)


@given(wanted=wanted_specs(), server=servers())
@settings(max_examples=300)
def test_applying_the_plan_leaves_nothing_to_plan(wanted: list[CollectionSpec], server: Found) -> None:
    todo = plan(wanted, server)
    refused = {refusal.collection for refusal in todo.refusals}
    assert plan(wanted, server) == todo
    reachable = [spec for spec in wanted if spec.name not in refused]
    after = carried_out(server, plan(reachable, server), reachable)
    assert plan(reachable, after).empty


@given(wanted=wanted_specs(), server=servers())
def test_a_refused_collection_is_left_untouched(wanted: list[CollectionSpec], server: Found) -> None:
    todo = plan(wanted, server)
    refused = {refusal.collection for refusal in todo.refusals}
    assert not [step for step in todo.steps if not isinstance(step, SwitchAliases) and step.collection in refused]
    assert all(
        "new collection" in refusal.sentence or "collection is named" in refusal.sentence for refusal in todo.refusals
    )


@given(wanted=wanted_specs(), server=servers())
def test_a_collection_that_no_file_declares_is_never_touched(wanted: list[CollectionSpec], server: Found) -> None:
    todo = plan(wanted, server)
    declared = {spec.name for spec in wanted}
    assert set(todo.unmanaged) == set(server.collections) - declared
    assert all(step.collection in declared for step in todo.steps if not isinstance(step, SwitchAliases))


def spec(**values: Any) -> CollectionSpec:
    return CollectionSpec.model_validate({"name": "a_v1", "vectors": {"size": 8, "distance": "Cosine"}, **values})


@pytest.mark.parametrize(
    ("after", "key"),
    [
        (spec(vectors={"size": 16, "distance": "Cosine"}), "vectors.size"),
        (spec(vectors={"size": 8, "distance": "Dot"}), "vectors.distance"),
        (spec(shard_number=2), "shard_number"),
    ],
)
def test_what_never_changes_in_place_is_refused_with_the_blue_green_way(after: CollectionSpec, key: str) -> None:
    server = as_server_has_it(spec())
    refusals = plan_collection(after, server).refusals
    assert [refusal.change.key for refusal in refusals] == [key]
    assert "a_v2" in refusals[0].sentence
    if key != "shard_number":
        assert [refusal.change.key for refusal in immutable_changes(spec(), after)] == [key]


def test_a_tenant_index_that_comes_after_the_points_is_refused() -> None:
    wanted = spec(payload_indexes={"t": {"type": "keyword", "is_tenant": True}}, tenant="t")
    assert plan_collection(wanted, as_server_has_it(spec(), points=5)).refusals
    assert not plan_collection(wanted, as_server_has_it(spec(), points=0)).refusals


def test_a_plan_reads_well_and_is_json() -> None:
    server = Found({"a_v1": replace(as_server_has_it(spec()), hnsw={"m": 16, "ef_construct": 100})}, {"old": "a_v1"})
    todo = plan([spec(hnsw_config={"m": 16, "ef_construct": 128}, aliases=["new"])], server)
    assert render(todo).splitlines() == [
        "~ a_v1 hnsw_config.ef_construct 100 -> 128",
        "~ alias new -> a_v1",
        "- alias old",
    ]
    assert to_json(todo)["steps"][0]["do"] == "update_collection"
    assert to_json(todo)["in_sync"] is False


def test_removed_quantization_is_disabled() -> None:
    server = as_server_has_it(spec(quantization_config={"scalar": {"type": "int8"}}))
    (step,) = plan_collection(spec(), server).steps
    assert isinstance(step, UpdateCollection)
    assert step.patch == {"quantization_config": "Disabled"}
