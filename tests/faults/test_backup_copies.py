"""What a restore makes beside live data, and what it makes anew: nobody else's writing is taken for its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from plinth.admin.postgres import ensure_database
from plinth.backup import drill, inspection, restore, store_lock
from plinth.backup import run as backup_run
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError, Busy
from plinth.backup.stores.postgres.recreate import contents
from plinth.backup.wait_limits import Patience
from plinth.qdrant.client import collection_path
from tests.databases import enter
from tests.faults.world import Backups, Live, fill_collection, start_empty

# Alike in their first 59 characters, and a name that a connection string would take apart.
ALIKE = ("a" * 59 + "1", "a" * 59 + "2")
ODD = "dbname=é x"
ROWS = {ALIKE[0]: 1, ALIKE[1]: 2, ODD: 3}
POINTS = {ALIKE[0]: 40, ALIKE[1]: 30}


@pytest.fixture(scope="module")
def alike(place: Path) -> Iterator[Backups]:
    """A set of stores whose names begin alike."""
    with ExitStack() as stack:
        (place / "alike").mkdir()
        live = start_empty(stack, place / "alike", "embedded")
        with live.node as node:
            for name, points in POINTS.items():
                fill_collection(node, name, points)
        for name, rows in ROWS.items():
            ensure_database(live.postgres, name, "core", "pass")
            with enter(live.postgres, name) as connection:
                connection.execute("CREATE TABLE t AS SELECT generate_series(1, %s) AS n", (rows,))
        made = Backups(place / "of-alike", live)
        assert backup_run.run(made.config, made.say).manifest.complete
        yield made


def run(made: Backups, wish: Wish) -> list[str]:
    return restore.run(made.config, made.config, wish, made.say).done


def live_of(made: Backups) -> Live:
    assert isinstance(made.live, Live)
    return made.live


def copies(made: Backups) -> tuple[dict[str, int], dict[str, int]]:
    """The collections with their points, and the databases with their rows, that are named for a set."""
    live = live_of(made)
    with live.node as node:
        points = {name: node.count(name) for name in node.collections() if "__" in name}
    with live.postgres.connect() as connection:
        names = [str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()]
    return points, {name: contents(live.postgres, name)[0].rows for name in names if "__" in name}


def removed(made: Backups) -> None:
    live = live_of(made)
    points, rows = copies(made)
    with live.node as node:
        for name in points:
            node.call("DELETE", collection_path(name))
    with live.postgres.connect() as connection:
        for name in rows:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_names_that_begin_alike_come_back_beside_each_other_and_whole(alike: Backups) -> None:
    said = " ".join(run(alike, Wish(stores=("qdrant", "postgres"), beside=True)))
    points, rows = copies(alike)
    assert sorted(points.values()) == sorted(POINTS.values())
    assert sorted(rows.values()) == sorted(ROWS.values())
    assert all(name in said for name in (*points, *rows))
    removed(alike)
    assert drill.run(alike.config, alike.say).result == "ok"


@pytest.mark.requirement("S1-06")
def test_a_copy_that_was_written_to_since_is_not_made_anew(alike: Backups) -> None:
    live, wish = live_of(alike), Wish(collections=ALIKE[:1], databases=(ODD,), beside=True)
    run(alike, wish)
    (copy,), (database,) = copies(alike)
    with live.node as node:
        node.call("POST", f"/collections/{copy}/points/delete?wait=true", {"points": [1]})
    with enter(live.postgres, database) as connection:
        connection.execute("INSERT INTO t VALUES (99)")
    before = copies(alike)
    for again in (wish, Wish(collections=ALIKE[:1], databases=(ODD,), replace=True)):
        with pytest.raises(BackupError) as refused:
            run(alike, again)
        for words in (f"collection {copy} is there", f"database {database} is there, and not as", "Nothing was"):
            assert words in str(refused.value)
        assert copies(alike) == before
    removed(alike)


def test_a_copy_that_was_asked_for_stays_when_the_live_one_is_restored(alike: Backups) -> None:
    live = live_of(alike)
    run(alike, Wish(collections=ALIKE[:1], beside=True))
    before = copies(alike)
    run(alike, Wish(collections=ALIKE[:1], replace=True))
    assert copies(alike) == before
    with live.node as node:
        node.call("DELETE", collection_path(ALIKE[0]))
    run(alike, Wish(collections=ALIKE[:1]))
    assert copies(alike) == before
    removed(alike)


def test_replace_makes_anew_what_differs_in_no_sampled_point(alike: Backups) -> None:
    name, live = ALIKE[0], live_of(alike)
    with live.node as node:
        body = {"payload": {"n": "spoilt"}, "points": [39]}
        node.call("POST", f"{collection_path(name)}/points/payload?wait=true", body)
        run(alike, Wish(collections=(name,), replace=True))
        (point,) = node.call("POST", f"{collection_path(name)}/points", {"ids": [39], "with_payload": True})
        assert point["payload"]["n"] == 39
    assert copies(alike) == ({}, {})


def test_a_store_that_has_no_name_beside_the_live_one_is_refused_where_it_is_asked_for(alike: Backups) -> None:
    with pytest.raises(BackupError, match=r"Redis has no name beside a live one .*Nothing was touched\.$"):
        run(alike, Wish(stores=("redis",), beside=True))


def test_a_store_and_a_collection_of_another_are_both_restored(alike: Backups) -> None:
    (each,) = inspection.sets(alike.config, alike.say)
    assert each.manifest
    both = Wish(stores=("redis",), collections=ALIKE[:1])
    assert restore.chosen(each.manifest, both) == ("qdrant", "redis")


def test_a_backup_and_a_restore_of_the_same_stores_take_turns_whoever_runs_them(alike: Backups, place: Path) -> None:
    # Another machine's backups: another lock on disk, another repository.
    there, said = Backups(place / "there", alike.live), []

    def refused(doing: Callable[[], object]) -> Callable[[str], None]:
        def at(line: str) -> None:
            if "restoring qdrant" in line or "taking postgres roles" in line:
                with pytest.raises(Busy) as busy:
                    doing()
                said.append(str(busy.value))

        return at

    wish = Wish(collections=ALIKE[:1], beside=True)
    backup = refused(lambda: backup_run.run(there.config, there.say))
    restore.run(alike.config, alike.config, wish, backup)
    removed(alike)
    assert there.state.backup
    assert (there.state.backup.result, there.sets()) == ("failed", [])
    assert backup_run.run(there.config, refused(lambda: run(alike, wish))).manifest.complete
    assert copies(alike) == ({}, {})
    assert [line.partition(" is at work; wait")[0] for line in said] == [
        "A restore into these stores",
        "A backup of the stores, or another restore into them,",
    ]


def test_a_backup_waits_for_a_restore_into_the_same_stores(alike: Backups) -> None:
    store, said = alike.config.postgres, []
    with ExitStack() as restore_of_another:
        restore_of_another.enter_context(store_lock.restoring(store, Patience(0, said.append)))

        def ends_it(line: str) -> None:
            said.append(line)
            restore_of_another.close()

        with store_lock.backing_up(store, Patience(60, ends_it)):
            pass
    assert said == ["waiting for a restore into these stores, 1 minutes at most"]


def test_a_restore_that_was_killed_is_not_followed_by_one_of_a_newer_set_unasked(alike: Backups) -> None:
    wish, first = Wish(collections=ALIKE[:1], replace=True), alike.sets()[0]["snapshot"][:8]

    def killed(line: str) -> None:
        if "restoring qdrant" in line:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        restore.run(alike.config, alike.config, wish, killed)
    # What the schedule takes meanwhile may be half of it.
    second = backup_run.run(alike.config, alike.say).snapshot[:8]
    with pytest.raises(
        BackupError, match=rf"of set {first} was begun .* {second} is newer; go on with --snapshot {first}"
    ):
        run(alike, wish)
    run(alike, replace(wish, snapshot=first))
    assert copies(alike) == ({}, {})
    run(alike, wish)


def test_only_a_backup_makes_a_repository(alike: Backups, place: Path) -> None:
    mistyped = Backups(place / "mistyped", alike.live)
    for ask in (
        lambda: run(mistyped, Wish()),
        lambda: drill.run(mistyped.config, mistyped.say),
        lambda: inspection.verify(mistyped.config, mistyped.say),
        lambda: inspection.check(mistyped.config, mistyped.say),
        lambda: inspection.prune(mistyped.config, mistyped.say),
    ):
        with pytest.raises(BackupError, match=r"There is no repository at .*; make a first backup, or correct"):
            ask()
        assert not mistyped.repository.exists()
    assert mistyped.sets() == []
