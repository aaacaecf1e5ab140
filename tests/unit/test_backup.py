"""What backups decide: which shard from which node, when a job is due, what is alike, what a listing lacks."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from plinth.backup.environment_config import require_backups
from plinth.backup.freshness import BackupStatus, problem
from plinth.backup.inspection import Checked, part_of
from plinth.backup.manifest import Manifest, Piece, Question, Shard, differences
from plinth.backup.output import checked_lines
from plinth.backup.restore import chosen, without_aliases
from plinth.backup.restore_source import Wish
from plinth.backup.scheduler import RETRY_AFTER, due
from plinth.backup.session import BackupError
from plinth.backup.stores.qdrant import probe_queries, shard_layout
from plinth.backup.stores.qdrant.shard_plan import plan_collection
from plinth.errors import UserError
from plinth.exporter.metrics import Reading, families, state_of
from plinth.services.backup import not_taken
from plinth.settings.loader import parse
from plinth.status_files.backup_runs import KINDS, Result, Run, State

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
    assert probe_queries.alike(was, question([1, 3, 2], [0.9, 0.5, 0.50000001]))
    assert probe_queries.alike(was, question([1, 2, 4], [0.9, 0.5, 0.5]))
    assert not probe_queries.alike(was, question([4, 2, 3], [0.9, 0.5, 0.5]))
    assert not probe_queries.alike(was, question([1, 2, 3], [0.9, 0.5, 0.4]))
    assert not probe_queries.alike(was, question([1, 2], [0.9, 0.5]))


def test_shards_of_a_key_find_their_place_in_a_collection_whose_ids_have_no_gap() -> None:
    saved = [
        Shard(id=id_, key=key, peer=1, path=f"qdrant/a/{id_}.snapshot", taken_at=0)
        for id_, key in ((1, "a"), (4, "b"), (6, "a"))
    ]
    assert shard_layout.shard_keys(saved) == [("a", 2), ("b", 1)]
    local = {
        0: {"local_shards": [{"shard_id": 1, "shard_key": "a"}]},
        1: {"local_shards": [{"shard_id": 2, "shard_key": "a"}, {"shard_id": 3, "shard_key": "b"}]},
    }
    assert shard_layout.places(saved, local) == {1: (1, 0), 6: (2, 1), 4: (3, 1)}
    with pytest.raises(Exception, match="bring every node back"):
        shard_layout.places(saved, {0: local[0]})


def test_a_store_that_someone_else_runs_is_said() -> None:
    managed = {"kubernetes": {"managed": {"redis_url": "rediss://r.test:6379"}}}
    assert set(not_taken(parse({"target": "kubernetes", **managed}, source="x"))) == {"redis"}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "set plinth:backup.enabled to true and run `plinth up prod`"),
        ({"left_out": {"plinth-backup": "no registry has its image"}}, "'prod' has no backups: no registry has its"),
    ],
)
def test_an_environment_without_backups_says_why(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_backups("prod", outputs)
    require_backups("prod", {"backup": {}})


HOUR, DAY = 3600.0, 86400.0
NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC).timestamp()
DAILY, WEEKLY = "0 3 * * *", "0 3 * * 1"


def last(age_s: float | None, result: Result = "ok", detail: str = "") -> Run:
    succeeded_at = None if age_s is None else NOW - age_s
    return Run(attempted_at=NOW - 60, succeeded_at=succeeded_at, result=result, duration_s=1, detail=detail)


@pytest.mark.parametrize(
    ("run", "schedule", "message"),
    [
        (None, DAILY, None),
        (last(60), DAILY, None),
        (last(25 * HOUR), DAILY, None),
        (last(25 * HOUR, "failed", "the disk is full"), DAILY, None),
        (last(27 * HOUR), DAILY, "the last good backup is 27.0 h old, and 26.0 h are allowed"),
        (last(3 * DAY, "failed", "the disk is full"), DAILY, "3.0 d old, and 26.0 h are allowed: the disk is full"),
        (last(3 * DAY, "incomplete", "redis was not taken"), DAILY, "26.0 h are allowed: redis was not taken"),
        # Rarer than the promise is what somebody chose.
        (last(5 * DAY), WEEKLY, None),
        (last(8 * DAY), WEEKLY, "the last good backup is 8.0 d old"),
        (last(None, "failed", "the bucket is missing"), DAILY, "no backup was good yet: the bucket is missing"),
        (last(None, "incomplete"), DAILY, "no backup was good yet"),
        # Clocks of two machines differ; one that was years ahead says nothing.
        (last(-60), DAILY, None),
        (last(-4 * 365 * DAY), DAILY, "no backup was good yet"),
        (Run(attempted_at=0, succeeded_at=1e300, result="ok", duration_s=1), DAILY, "no backup was good yet"),
        (Run(attempted_at=1e300, succeeded_at=1e300, result="ok", duration_s=1), DAILY, "ahead of this clock"),
    ],
)
def test_an_environment_is_ready_while_its_last_good_backup_is_young(
    run: Run | None, schedule: str, message: str | None
) -> None:
    found = problem(State(backup=run), schedule, 26, NOW)
    assert (found is None) == (message is None)
    assert message is None or message in str(found)


def test_the_last_backup_check_and_drill_read_with_their_ages() -> None:
    state = State(backup=last(3 * HOUR), check=last(None, "failed", "damaged"), drill=last(-9 * DAY))
    rows = {kind: rest for kind, *rest in BackupStatus(state).rows(NOW)}
    assert rows["backup"] == ["ok", "last good 3.0 h ago", ""]
    assert rows["check"] == ["FAILED", "none good yet", "damaged"]
    assert rows["drill"][1] == "none good yet"
    assert "ahead of this clock" in rows["drill"][2]
    told = BackupStatus(state, "too old").to_json(NOW)
    assert (told["backup"]["age_s"], told["check"]["age_s"], told["drill"]["age_s"]) == (3 * HOUR, None, None)
    assert told["problem"] == "too old"
    assert list(BackupStatus(State()).rows(NOW)) == [(kind, "never ran", "", "") for kind in KINDS]
    assert BackupStatus(State()).to_json(NOW)["drill"] is None


runs = st.none() | st.builds(
    Run,
    attempted_at=st.floats(1, 1e10),
    succeeded_at=st.none() | st.floats(1, 1e10),
    result=st.sampled_from(("ok", "incomplete", "failed")),
    duration_s=st.floats(0, 1e6),
    size_bytes=st.none() | st.integers(0, 1 << 50),
    stores=st.dictionaries(st.sampled_from(("qdrant", "redis")), st.sampled_from(("ok", "failed"))),
)


@given(st.builds(State, backup=runs, check=runs, drill=runs))
def test_what_the_exporter_tells_of_a_state_reads_back(state: State) -> None:
    reading = Reading(at=1.0, peers=1, memory_limit_bytes=1, state=state)
    assert state_of(generate_latest(Page(list(families(reading)))).decode()) == state


class Page:
    """A registry that holds some metrics."""

    def __init__(self, told: list[Any]) -> None:
        self._families = told

    def collect(self) -> list[Any]:
        return self._families


@pytest.mark.parametrize(
    ("checked", "words"),
    [
        (
            Checked(2, 4, "53 of 210 packs"),
            "part 2 of 4 of the data was read (53 of 210 packs), which is whole",
        ),
        (Checked(1, 4, ""), "structure is whole, and part 1 of 4 of the data was read, which is whole"),
        (Checked(1, 1, ""), "The repository is whole: all of the data was read."),
    ],
)
def test_a_check_claims_no_more_than_it_read(checked: Checked, words: str) -> None:
    assert words in " ".join(checked_lines(checked))


def saved(aliases: dict[str, str]) -> Manifest:
    about = {"described": {}, "shard_count": 0, "shards": ()}
    collections = [{"name": name, **about} for name in ("trades_v1", "news_v2")]
    part = {"engine": "server", "version": "1", "peers": {}, "aliases": aliases, "collections": collections}
    whole = {"name": "t", "plinth": "1", "began_at": 0, "ended_at": 0, "stores": {"qdrant": "ok"}, "pieces": ()}
    return Manifest.model_validate({**whole, "qdrant": part})


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (("trades",), ("trades_v1",)),
        (("trades_v1",), ("trades_v1",)),
        (("trades", "trades_v1", "latest"), ("trades_v1",)),
        (("news", "trades"), ("news_v2", "trades_v1")),
        ((), ()),
    ],
)
def test_a_collection_is_known_by_its_alias(asked: tuple[str, ...], names: tuple[str, ...]) -> None:
    manifest = saved({"trades": "trades_v1", "latest": "trades_v1", "news": "news_v2"})
    wish = without_aliases(manifest, Wish(collections=asked))
    assert wish.collections == names
    assert chosen(manifest, wish) == ("qdrant",)


def test_a_name_that_is_neither_a_collection_nor_an_alias_is_refused_with_both() -> None:
    manifest = saved({"trades": "trades_v1"})
    with pytest.raises(BackupError, match="holds no collection 'nope'; it has trades_v1, news_v2, trades"):
        chosen(manifest, without_aliases(manifest, Wish(collections=("nope",))))
