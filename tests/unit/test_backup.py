"""What backups decide: which shard from which node, when a job is due, what is alike, what a listing lacks."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup import layout, probes
from plinth.backup.deployed import elsewhere
from plinth.backup.look import part_of
from plinth.backup.manifest import Piece, Question, Shard, differences
from plinth.backup.plan import plan_collection
from plinth.backup.schedule import RETRY_AFTER, due
from plinth.backup.state import Run
from plinth.environment import parse
from plinth.services.backup import not_taken

STATES = ("Active", "Dead", "Partial", "Initializing", "Recovery")


@st.composite
def clusters(draw: st.DrawFn) -> tuple[dict[int, dict[int, str]], int, int]:
    """States by node by shard, the number of nodes and of shards; every shard has at least one replica."""
    nodes, shards = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    held: dict[int, dict[int, str]] = {node: {} for node in range(nodes)}
    for shard in range(shards):
        for node in draw(st.sets(st.integers(0, nodes - 1), min_size=1)):
            held[node][shard] = draw(st.sampled_from(STATES))
    return held, nodes, shards


def answers(held: dict[int, dict[int, str]], shards: int, alive: set[int]) -> dict[int, dict[str, Any]]:
    return {
        node: {
            "peer_id": node + 100,
            "shard_count": shards,
            "local_shards": [{"shard_id": shard, "state": state} for shard, state in held[node].items()],
            "remote_shards": [
                {"shard_id": shard, "peer_id": other + 100, "state": state}
                for other in held
                if other != node
                for shard, state in held[other].items()
            ],
            "shard_transfers": [],
        }
        for node in alive
    }


@given(clusters(), st.data())
def test_every_shard_is_taken_once_from_a_node_that_has_it_active_or_is_named(
    cluster: tuple[dict[int, dict[int, str]], int, int], data: st.DataObject
) -> None:
    held, nodes, shards = cluster
    alive = data.draw(st.sets(st.integers(0, nodes - 1), min_size=1))
    plan = plan_collection("c", answers(held, shards, alive), Counter())
    taken = [take.shard for take in plan.takes]
    assert len(set(taken)) == len(taken)
    assert all(held[take.node][take.shard] == "Active" and take.node in alive for take in plan.takes)
    possible = {shard for node in alive for shard, state in held[node].items() if state == "Active"}
    assert set(taken) == possible
    assert plan.shard_count == shards
    assert len(plan.failures) == shards - len(possible)


def test_resharding_makes_a_set_incomplete() -> None:
    answer = answers({0: {0: "Active"}}, 1, {0})
    answer[0]["resharding_operations"] = [{"direction": "up"}]
    assert "resharded" in plan_collection("c", answer, Counter()).failures[0]


@given(st.dictionaries(st.text("abc/", min_size=1), st.integers(0, 99)))
def test_a_listing_that_is_what_was_staged_has_no_difference(files: dict[str, int]) -> None:
    pieces = [Piece.model_construct(path=path, size=size, sha256="") for path, size in files.items()]
    assert differences(files, pieces) == []
    for path in files:
        assert differences({name: size for name, size in files.items() if name != path}, pieces) == [
            f"{path} is missing"
        ]
        assert len(differences({**files, path: files[path] + 1}, pieces)) == 1
    assert differences({**files, "x": 1}, pieces) == ["x is not in the manifest"]


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["ok", "failed", "incomplete"]),
)
def test_a_job_is_due_after_it_last_began_and_a_failed_one_soon(began: datetime, result: Any) -> None:
    last = Run(attempted_at=began.timestamp(), result=result, duration_s=1)
    at = due("0 3 * * *", began - timedelta(days=9), last, retried=True)
    assert timedelta(0) < at - began <= timedelta(days=1)
    if result == "failed":
        assert at - began <= RETRY_AFTER
    else:
        assert (at.hour, at.minute, at.second) == (3, 0, 0)


def test_a_schedule_that_never_ran_counts_from_its_first_start() -> None:
    since = datetime(2026, 5, 1, 4, tzinfo=UTC)
    assert due("0 3 * * *", since, None, retried=True) == datetime(2026, 5, 2, 3, tzinfo=UTC)


@given(st.integers(1, 12), st.integers(2020, 2040))
def test_as_many_checks_in_a_row_as_there_are_parts_read_every_part(parts: int, year: int) -> None:
    first = datetime(year, 2, 1, tzinfo=UTC)
    assert {part_of(first + timedelta(weeks=week), parts) for week in range(parts)} == set(range(1, parts + 1))


def question(ids: list[int], scores: list[float]) -> Question:
    return Question(query=[1.0], ids=tuple(ids), scores=tuple(scores))


def test_answers_are_alike_up_to_a_rounding_and_the_order_of_ties() -> None:
    was = question([1, 2, 3], [0.9, 0.5, 0.5])
    assert probes.alike(was, question([1, 3, 2], [0.9, 0.5, 0.50000001]))
    assert probes.alike(was, question([1, 2, 4], [0.9, 0.5, 0.5]))
    assert not probes.alike(was, question([4, 2, 3], [0.9, 0.5, 0.5]))
    assert not probes.alike(was, question([1, 2, 3], [0.9, 0.5, 0.4]))
    assert not probes.alike(was, question([1, 2], [0.9, 0.5]))


def test_shards_of_a_key_find_their_place_in_a_collection_whose_ids_have_no_gap() -> None:
    saved = [
        Shard(id=id_, key=key, peer=1, path=f"qdrant/a/{id_}.snapshot", taken_at=0)
        for id_, key in ((1, "a"), (4, "b"), (6, "a"))
    ]
    assert layout.shard_keys(saved) == [("a", 2), ("b", 1)]
    local = {
        0: {"local_shards": [{"shard_id": 1, "shard_key": "a"}]},
        1: {"local_shards": [{"shard_id": 2, "shard_key": "a"}, {"shard_id": 3, "shard_key": "b"}]},
    }
    assert layout.places(saved, local) == {1: (1, 0), 6: (2, 1), 4: (3, 1)}
    with pytest.raises(Exception, match="bring every node back"):
        layout.places(saved, {0: local[0]})


ON_KUBERNETES: dict[str, Any] = {"target": "kubernetes", "kubernetes": {"namespace": "vectors"}}
BUCKET = {"repository": "s3:https://s3.test/b"}
CREATE = "kubectl -n vectors create job"


@pytest.mark.parametrize(
    ("settings", "command", "words"),
    [
        (ON_KUBERNETES, "run", f"{CREATE} backup-run-now --from=cronjob/backup-run"),
        ({**ON_KUBERNETES, "backup": BUCKET}, "drill", f"{CREATE} backup-drill-now --from=cronjob/backup-drill"),
        (ON_KUBERNETES, "list", f"{CREATE} backup-list --from=cronjob/backup-run --dry-run=client -o yaml | sed"),
        (ON_KUBERNETES, "restore", "sed 's/- run$/- restore/'"),
        ({"target": "docker"}, "restore", "`docker exec plinth-prod-plinth-backup python3 -m plinth.backup --config"),
        ({**ON_KUBERNETES, "backup": BUCKET}, "list", None),
        ({**ON_KUBERNETES, "backup": BUCKET}, "restore", None),
        ({"target": "docker", "backup": BUCKET}, "run", None),
        ({"target": "local"}, "run", None),
    ],
)
def test_what_is_not_this_machines_names_the_line_that_does_it(
    settings: dict[str, Any], command: str, words: str | None
) -> None:
    said = elsewhere("prod", parse(settings, source="x"), command)
    assert (said is None) == (words is None)
    assert words is None or words in str(said)


def test_a_store_that_someone_else_runs_is_said() -> None:
    managed = {"kubernetes": {"managed": {"redis_url": "rediss://r.test:6379"}}}
    assert set(not_taken(parse({"target": "kubernetes", **managed}, source="x"))) == {"redis"}
