"""What `plinth tune` tries in what order, what it takes and what it prints; the engine is a function here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plinth.qdrant.spec import CollectionSpec, load_specs, named
from plinth.sizing import quantization_name
from plinth.tune.pareto import Outcome, Point, choose, pareto, point, settings_lines
from plinth.tune.recall_bands import certain, spread
from plinth.tune.search_space import Build, Search, builds, searches, shipped, spec_of
from plinth.tune.sweep import Queries, Tuned, sweep
from tests.conftest import ROOT

SPECS = load_specs(ROOT / "config" / "collections")
TRADES, PAGES = named(SPECS, "trades"), named(SPECS, "crawled_pages")
GRAPHS = [Build(16, 0, 100, "none"), Build(8, 0, 100, "none"), Build(32, 0, 100, "none")]
FAST, SLOW = Search(1.0, 32), Search(1.0, 256)


points = st.builds(
    Point,
    build=st.sampled_from(GRAPHS),
    search=st.sampled_from([FAST, SLOW]),
    builds=st.just(2),
    recall=st.fixed_dictionaries({"a": st.floats(0, 1), "b": st.floats(0, 1)}),
    at_least=st.fixed_dictionaries({"a": st.floats(0, 1), "b": st.floats(0, 1)}),
    p50_ms=st.floats(0.1, 10),
    p95_ms=st.floats(0.1, 10),
    memory=st.floats(1, 1e10),
)


def beats(one: Point, other: Point) -> bool:
    no_worse = one.worst >= other.worst and one.p50_ms <= other.p50_ms and one.memory <= other.memory
    return no_worse and (one.worst, one.p50_ms, one.memory) != (other.worst, other.p50_ms, other.memory)


@given(st.lists(points, max_size=30))
def test_the_front_holds_what_nothing_beats_and_leaves_out_nothing_else(found: list[Point]) -> None:
    front = pareto(found)
    assert not any(beats(one, other) for one in front for other in front)
    for candidate in found:
        assert any(kept == candidate or not beats(candidate, kept) for kept in front)
        same = [(kept.worst, kept.p50_ms, kept.memory) for kept in front]
        beaten = any(beats(kept, candidate) for kept in front)
        assert beaten or (candidate.worst, candidate.p50_ms, candidate.memory) in same


@given(st.lists(points, max_size=30), st.floats(0, 1))
def test_the_choice_meets_the_floor_in_every_band_and_costs_about_the_least(found: list[Point], floor: float) -> None:
    chosen = choose(found, floor)
    good = [candidate for candidate in found if min(candidate.at_least.values()) >= floor]
    assert (chosen is None) == (not good)
    if chosen:
        assert chosen in good
        quickest = min(candidate.p50_ms for candidate in good)
        assert chosen.p50_ms <= max(quickest * 1.1, quickest + 0.1)


@given(st.lists(st.integers(0, 10).map(lambda hits: hits / 10), min_size=1, max_size=300))
def test_the_certain_recall_is_below_the_mean_and_comes_closer_with_more_queries(scores: list[float]) -> None:
    mean = sum(scores) / len(scores)
    assert certain(scores) < mean
    assert certain(scores) <= certain(scores * 9) < mean


def test_queries_are_spread_over_the_sizes_of_tenants() -> None:
    asked = ["big"] * 900 + ["small"] * 60
    chosen = spread(asked, {"big": 0.9, "small": 0.005}, 100)
    assert len(set(chosen)) == 100
    assert sum(asked[position] == "small" for position in chosen) == 50
    assert len(spread(asked, {"big": 0.9, "small": 0.005}, 500)) == 500


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_ships_is_tried_first_and_a_scoped_collection_stays_scoped(spec: CollectionSpec) -> None:
    own = quantization_name(spec.quantization_config)
    tried = builds(spec, [own])
    assert tried[0] == shipped(spec, own)
    assert len(set(tried)) == len(tried) >= 6
    assert {build.m for build in tried} == {0} if spec.scopes else 0 not in {build.m for build in tried}
    for build in tried:
        made = spec_of(spec, build, own)
        assert shipped(made, own) == build
        assert made.payload_indexes == spec.payload_indexes
    assert spec_of(spec, Build(*tried[0].__dict__.values()), own).quantization_config == spec.quantization_config
    assert spec_of(spec, Build(tried[0].m, 16, 100, "none"), own).quantization_config is None


def test_a_row_of_searches_costs_ever_more() -> None:
    for row in [*searches(True), *searches(False)]:
        assert all(one.ef < other.ef and one.oversampling == other.oversampling for one, other in pairwise(row))
    assert {search.rescore for row in searches(True) for search in row} == {True, False}


@pytest.mark.parametrize("spec", [TRADES, PAGES], ids=lambda spec: spec.name)
def test_the_lines_can_be_put_into_the_file(spec: CollectionSpec) -> None:
    quantization = spec.quantization_config.model_dump(exclude_none=True) if spec.quantization_config else None
    build = Build(spec.hnsw_config.m or 0, 32, 200, "int8")
    chosen = point(build, Search(3.0, 64), [outcome(1.0)], 1.0)
    lines = yaml.safe_load(settings_lines(spec, chosen, quantization))
    pasted = CollectionSpec.model_validate(spec.model_dump(exclude_none=True) | lines)
    assert shipped(pasted, "int8") == build
    assert pasted.search.params() == {"hnsw_ef": 64, "quantization": {"rescore": True, "oversampling": 3.0}}
    assert pasted.quantization_config == spec.quantization_config


def outcome(recall: float, ms: float = 1.0, count: int = 400) -> Outcome:
    return Outcome({"whole collection": [recall] * count}, (ms,) * count)


class Bench:
    """Builds take ten seconds; each graph has a recall for every build of it, the last for all that follow."""

    def __init__(self, recalls: dict[Build, Sequence[float]], held_out: dict[Build, float] | None = None) -> None:
        self.recalls, self.held_out = recalls, held_out or {}
        self.built: list[tuple[Build, Queries]] = []
        self.now = 0.0

    def trial(self, build: Build, queries: Queries, only: Sequence[Search] | None) -> dict[Search, Outcome]:
        before = [one for one, _ in self.built].count(build)
        self.built.append((build, queries))
        self.now += 10
        given = self.recalls[build]
        recall = given[min(before, len(given) - 1)]
        if queries == "held out":
            recall = self.held_out.get(build, recall)
        assert only is None or queries == "held out"
        return {FAST: outcome(recall, ms=1 + GRAPHS.index(build)), SLOW: outcome(recall, ms=9)}

    def run(self, budget_s: float = 1000) -> Tuned:
        return sweep(
            GRAPHS,
            self.trial,
            lambda build: build.m,
            floor=0.97,
            budget_s=budget_s,
            clock=lambda: self.now,
        )


def test_the_quickest_that_meets_the_floor_twice_and_with_other_queries_is_chosen() -> None:
    bench = Bench({GRAPHS[0]: [1], GRAPHS[1]: [1], GRAPHS[2]: [0.5]})
    found = bench.run()
    assert found.chosen
    assert (found.chosen.build, found.chosen.search, found.exit_code) == (GRAPHS[0], FAST, 0)
    assert bench.built[-1] == (GRAPHS[0], "held out")
    # What failed once is not built again.
    assert [build for build, _ in bench.built].count(GRAPHS[2]) == 1


def test_a_graph_that_is_well_in_one_build_of_two_is_not_chosen() -> None:
    found = Bench({GRAPHS[0]: [1, 0.4], GRAPHS[1]: [1], GRAPHS[2]: [0.5]}).run()
    assert found.chosen
    assert found.chosen.build == GRAPHS[1]


def test_what_held_out_queries_refute_gives_way_to_the_next() -> None:
    found = Bench({graph: [1] for graph in GRAPHS}, held_out={GRAPHS[0]: 0.9}).run()
    assert found.chosen
    assert found.chosen.build == GRAPHS[1]
    assert GRAPHS[0] in {refuted.build for refuted in found.refuted}


def test_when_nothing_meets_the_floor_it_says_so_and_shows_how_far_it_is() -> None:
    found = Bench({GRAPHS[0]: [0.9], GRAPHS[1]: [0.95], GRAPHS[2]: [0.5]}).run()
    assert (found.chosen, found.exit_code) == (None, 1)
    assert "Nothing that was tried meets recall 0.97" in found.sentence(0.97)
    assert {point.build for point in found.front} == {GRAPHS[1]}


@given(st.integers(1, 200), st.randoms())
def test_the_budget_holds_whatever_it_is(budget_s: int, chance: random.Random) -> None:
    bench = Bench({graph: [chance.choice([1.0, 0.5]) for _ in range(3)] for graph in GRAPHS})
    found = bench.run(budget_s)
    # The first build is always made: before it nobody knows how long one takes.
    assert bench.now <= max(10, budget_s)
    assert found.left_out == len(GRAPHS) - len(found.tried)
    if found.chosen:
        assert found.confirmed
        assert len(found.tried[found.chosen.build]) == 2
    if found.exit_code == 3:
        assert "--budget-s" in found.sentence(0.97)


def test_a_budget_that_ends_before_the_proof_is_no_verdict() -> None:
    found = Bench({graph: [1] for graph in GRAPHS}).run(budget_s=25)
    assert (found.chosen, found.exit_code) == (None, 3)
