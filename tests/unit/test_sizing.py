"""The arithmetic of `plinth size`, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from plinth.cli import app
from plinth.errors import UserError
from plinth.qdrant.spec import load_specs
from plinth.settings.tiers import SIZES, Tier
from plinth.sizing import (
    MIB,
    QUANTIZATIONS,
    Workload,
    estimate,
    fits,
    months_until_full,
    need,
    parts,
    quantization_name,
)
from tests.conftest import ROOT

workloads = st.builds(
    Workload,
    vectors=st.integers(1, 50_000_000),
    dimensions=st.integers(1, 4096),
    tenants=st.integers(1, 10_000),
    replicas=st.integers(1, 3),
    nodes=st.integers(3, 12),
    quantization=st.sampled_from(sorted(QUANTIZATIONS)),
    datatype=st.sampled_from(["float32", "float16", "uint8"]),
    m=st.integers(0, 64),
    payload_m=st.integers(0, 64),
    linked_fields=st.integers(0, 5),
    payload_bytes=st.integers(0, 100_000),
    indexed_bytes=st.integers(0, 1000),
    growth=st.integers(0, 1_000_000),
    cold_vectors=st.booleans(),
)


def ram(load: Workload, name: str) -> float:
    return next(part.ram for part in parts(load) if part.name == name)


@pytest.mark.requirement("S1-12")
@pytest.mark.parametrize(
    ("quantization", "times"), [("int8", 4), ("x16", 16), ("x64", 64), ("binary", 32), ("turbo4", 8)]
)
def test_quantized_vectors_are_as_much_smaller_as_published(quantization: str, times: float) -> None:
    plain = Workload(vectors=100_000, dimensions=768)
    small = ram(replace(plain, quantization=quantization), "quantized vectors")
    # int8 carries a float a vector: half a percent at 768 dimensions.
    assert ram(plain, "vectors") / small == pytest.approx(times, rel=0.01)


def test_the_sums_are_those_that_a_hand_computes() -> None:
    load = Workload(vectors=100_000, dimensions=768, quantization="int8", payload_bytes=100, indexed_bytes=10)
    assert ram(load, "vectors") == 100_000 * 768 * 4
    assert ram(load, "quantized vectors") == 100_000 * 772
    # 17 bits number 100,000 points.
    assert ram(load, "graph") == pytest.approx(100_000 * 16 * 2 * 17 / 8 * 1.2)
    assert ram(load, "ids") == 5_200_000
    assert ram(load, "payload") == 15_000_000
    assert ram(load, "payload indexes") == 2_000_000


@given(workloads, st.integers(1, 1_000_000))
def test_more_points_need_more_and_a_replica_more_needs_more(load: Workload, more: int) -> None:
    shards = estimate(load).shard_number
    small, big = need(load, shards), need(replace(load, vectors=load.vectors + more), shards)
    assert small.hot < big.hot
    assert small.total < big.total
    assert small.disk < big.disk
    assert small.hot <= small.total < small.ram
    assert need(replace(load, replicas=load.replicas + 1), shards).total >= small.total


@given(workloads)
def test_the_tier_is_the_smallest_that_holds_it(load: Workload) -> None:
    found = estimate(load)
    tiers = list(SIZES)
    holding = [tier for tier in tiers if fits(found.need, SIZES[tier])]
    assert found.tier == (holding[0] if holding else None)
    # Whatever fits a tier fits every larger one.
    assert holding == tiers[len(tiers) - len(holding) :]


@given(workloads)
def test_full_is_the_month_whose_growth_no_longer_fits(load: Workload) -> None:
    found = estimate(load)
    if found.tier is None or not load.growth:
        assert found.months is None
        return
    assert found.months is not None
    size = SIZES[found.tier]

    def after(months: int) -> bool:
        grown = replace(load, vectors=load.vectors + months * load.growth)
        return fits(need(grown, found.shard_number), size)

    assert after(found.months)
    assert not after(found.months + 1)


@given(workloads)
def test_every_node_has_as_many_shards_and_the_nodes_it_asks_for_hold_it(load: Workload) -> None:
    found = estimate(load)
    assert found.shard_number % load.nodes == 0
    assert found.nodes_needed >= load.replicas
    assert found.nodes_needed != 2
    if found.tier is None:
        # Two shards for each of them, so none holds more than its share.
        enough = replace(load, nodes=found.nodes_needed)
        assert fits(need(enough, 2 * found.nodes_needed), SIZES[Tier.large])


@given(workloads)
def test_cold_originals_take_no_memory_and_stay_on_disk(load: Workload) -> None:
    warm, cold = replace(load, cold_vectors=False), replace(load, cold_vectors=True)
    if load.quantization == "none":
        assert parts(cold) == parts(warm)
    else:
        assert ram(cold, "vectors") == 0
        assert [part.disk for part in parts(cold)] == [part.disk for part in parts(warm)]


def test_a_tier_that_is_full_lasts_no_month() -> None:
    load = Workload(vectors=1_000_000, dimensions=768, growth=10_000_000)
    assert months_until_full(load, 1, SIZES[Tier.medium]) == 0


def test_each_shipped_collection_names_its_quantization() -> None:
    names = {quantization_name(spec.quantization_config) for spec in load_specs(ROOT / "config" / "collections")}
    assert names == {"int8"}


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(ROOT)
    return CliRunner()


def test_a_collection_and_an_environment_say_the_rest(size: CliRunner) -> None:
    said = size.invoke(
        app, ["size", "--vectors", "100000", "--collection", "trades", "--env", "prod", "--growth", "1000", "--json"]
    )
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert (found["workload"]["dimensions"], found["workload"]["quantization"]) == (768, "int8")
    assert (found["workload"]["nodes"], found["workload"]["replicas"]) == (3, 2)
    assert found["workload"]["m"] == 0
    assert found["environment"]["holds"] is True
    assert found["environment"]["months_until_full"] > found["months_until_full"] > 0
    assert found["per_node"]["memory_limit_bytes"] < SIZES[Tier(found["tier"])].memory_mib * MIB


def test_a_file_of_ones_own_serves_and_the_formula_is_shown(size: CliRunner, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{name: mine, vectors: {size: 100, distance: Dot}, quantization_config: {binary: {}}}")
    said = size.invoke(app, ["size", "--vectors", "1000", "--collection", str(mine), "--tenants", "4"])
    assert said.exit_code == 0, said.output
    assert "1,000·100·4" in said.stdout
    assert "1,000·100·0.125" in said.stdout
    assert "4 of 250 points on average: scanned" in said.stdout


def test_what_no_tier_holds_is_an_answer_that_names_the_nodes(size: CliRunner) -> None:
    said = size.invoke(app, ["size", "--vectors", "100000000", "--dimensions", "1536"])
    assert said.exit_code == 1
    assert "nodes of tier large hold it" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "How long is a vector"),
        (["--dimensions", "8", "--quantization", "int4"], "it is one of none, int8"),
        (["--dimensions", "8", "--replicas", "2"], "give --nodes 2 or more"),
        (["--dimensions", "8", "--cold-vectors"], "--cold-vectors wants quantized vectors"),
        (["--collection", "nothing"], "There is no collection 'nothing'; there are"),
        (["--collection", "nothing.yaml"], "There is no collection file nothing.yaml"),
    ],
)
def test_wrong_use_is_a_sentence(size: CliRunner, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        size.invoke(app, ["size", "--vectors", "10", *arguments], catch_exceptions=False)
