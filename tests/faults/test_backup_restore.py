"""Restores: into nothing, beside, over what is live; never over it unasked; and again after a kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from plinth.backup import restore
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError
from plinth.backup.stores.postgres.recreate import contents
from plinth.backup.stores.redis.backup import keyspace
from tests.databases import enter
from tests.faults.world import KEYS, POINTS, ROWS, Backups, Live, killed_at, start_empty


@pytest.fixture(scope="module")
def empty(place: Path) -> Iterator[Live]:
    """Another environment, in which nothing is."""
    with ExitStack() as stack:
        (place / "empty").mkdir()
        yield start_empty(stack, place / "empty", "embedded")


def into(stocked: Backups, other: Live, wish: Wish) -> list[str]:
    there = Backups(stocked.directory / "there", other)
    return restore.run(stocked.config, there.config, wish, stocked.say).done


def test_everything_is_restored_into_an_empty_environment_and_serves(stocked: Backups, empty: Live) -> None:
    into(stocked, empty, Wish())
    with empty.node as node:
        assert node.count("trades") == POINTS
        assert node.aliases() == {"trades": "trades_v1"}
        assert set(node.collections()) == {"trades_v1", "a b%"}
        hits = node.call(
            "POST",
            "/collections/trades/points/query",
            {"query": [1.0] * 8, "filter": {"must": [{"key": "t", "match": {"value": "t1"}}]}, "limit": 3},
        )["points"]
        assert len(hits) == 3
    assert {table.name: table.rows for table in contents(empty.postgres, "core")} == {"rows": ROWS, "keyless": ROWS}
    with enter(empty.postgres, "core") as connection:
        row = connection.execute(
            "SELECT current_setting('work_mem'), pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'core'"
        ).fetchone()
        assert row == ("5MB", "core")
        assert connection.execute("INSERT INTO rows (words) VALUES ('new') RETURNING id").fetchone() == (ROWS + 1,)
    assert empty.redis.get("s7") == b"value 7"
    assert empty.redis.hget("h", "3") == b"3"
    assert empty.redis.expiretime("fleeting") == stocked.live.redis.expiretime("fleeting") > 0


RESTORE = """
import sys
from pathlib import Path
from plinth.backup import restore
from plinth.backup.config import load_config
from plinth.backup.restore_source import Wish
source, target = (load_config(Path(name)) for name in sys.argv[1:3])
restore.run(source, target, Wish(stores=tuple(sys.argv[3:])), lambda line: print(line, file=sys.stderr, flush=True))
"""
# Postgres and Qdrant are restored at the same time: their later steps are met where one is restored alone.
STEPS = (
    ("fetching postgres",),
    ("fetching qdrant",),
    ("restoring postgres core", "postgres"),
    ("takes the name core", "postgres"),
    ("restoring qdrant trades_v1", "qdrant"),
    ("fetching redis", "redis"),
    ("restoring redis database",),
)


def test_a_restore_that_is_killed_at_any_step_goes_on_and_ends_whole(stock: Backups, place: Path) -> None:
    with ExitStack() as stack:
        (place / "killed").mkdir()
        other = start_empty(stack, place / "killed", "embedded")
        there = Backups(stock.directory / "there", other)
        for step, *stores in STEPS:
            killed_at(step, [sys.executable, "-c", RESTORE, str(stock.file), str(there.file), *stores])
            stock.listed_when_free()
        into(stock, other, Wish())
        with other.node as node:
            assert set(node.collections()) == {"trades_v1", "a b%"}
            assert (node.count("trades"), node.count("a b%")) == (POINTS, 20)
            assert node.aliases() == {"trades": "trades_v1"}
        assert {table.name: table.rows for table in contents(other.postgres, "core")} == {"rows": ROWS, "keyless": ROWS}
        assert set(keyspace(other.redis)) == {0}
        assert keyspace(other.redis)[0][0] == KEYS + 6
        assert not list((stock.work / "restore").glob("*"))


def test_over_live_data_nothing_is_restored_unasked(stocked: Backups, live: Live) -> None:
    before = contents(live.postgres, "core")
    with pytest.raises(BackupError) as refused:
        into(stocked, live, Wish())
    for words in ("trades_v1 holds 300 points", "core holds rows", "holds", "Nothing was touched", "--replace"):
        assert words in str(refused.value)
    assert contents(live.postgres, "core") == before


def test_a_redis_that_would_evict_keys_for_it_is_not_touched_nor_anything_else(stocked: Backups, live: Live) -> None:
    before, used = keyspace(live.redis), int(live.redis.info("memory")["used_memory"])
    live.redis.config_set("maxmemory", used + 1000)
    try:
        with pytest.raises(
            BackupError, match=r"would evict keys; raise plinth:redis\.maxmemory_mib.*Nothing was touched"
        ):
            into(stocked, live, Wish(replace=True))
    finally:
        live.redis.config_set("maxmemory", 0)
    assert keyspace(live.redis) == before
    with live.node as node:
        assert set(node.collections()) == {"trades_v1", "a b%"}


def test_one_collection_comes_back_beside_the_live_one(stocked: Backups, live: Live) -> None:
    with live.node as node:
        node.call("POST", "/collections/trades_v1/points/delete?wait=true", {"points": list(range(100))})
        (said,) = into(stocked, live, Wish(collections=("trades",), beside=True))
        copy = next(name for name in node.collections() if name.startswith("trades_v1__"))
        assert copy in said
        assert (node.count(copy), node.count("trades_v1")) == (POINTS, POINTS - 100)
        assert node.aliases() == {"trades": "trades_v1"}
        node.call("DELETE", f"/collections/{copy}")


def test_replace_brings_back_what_was_lost_and_keeps_what_was_live_in_postgres(stocked: Backups, live: Live) -> None:
    with enter(live.postgres, "core") as connection:
        connection.execute("DELETE FROM rows")
    live.redis.delete("s1")
    live.redis.set("later", "gone after the restore")
    with live.node as node:
        node.call("POST", "/collections/trades_v1/points/delete?wait=true", {"points": list(range(150))})
        said = into(stocked, live, Wish(replace=True))
        assert (node.count("trades"), node.aliases()) == (POINTS, {"trades": "trades_v1"})
        assert set(node.collections()) == {"trades_v1", "a b%"}
    assert {table.name: table.rows for table in contents(live.postgres, "core")} == {"rows": ROWS, "keyless": ROWS}
    aside = next(line for line in said if "core__before_" in line).split("kept as ")[1].split(",")[0]
    assert {table.name: table.rows for table in contents(live.postgres, aside)} == {"rows": 0, "keyless": ROWS}
    assert live.redis.get("s1") == b"value 1"
    assert live.redis.get("later") is None
    assert set(keyspace(live.redis)) == {0}
    assert keyspace(live.redis)[0][0] == KEYS + 6


def test_what_a_set_does_not_hold_is_said_with_what_it_holds(stocked: Backups, live: Live) -> None:
    with pytest.raises(BackupError, match=r"no collection 'other'; it has a b%, trades_v1, trades"):
        into(stocked, live, Wish(collections=("other",)))
    with pytest.raises(BackupError, match="0 sets begin with 'ffff'"):
        into(stocked, live, Wish(snapshot="ffff"))
