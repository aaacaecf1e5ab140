"""Restore a set: everything is created under a new name and compared, and only then replaces the live data.

A restore that was killed can be run again: what it had fetched and created is compared and kept. Postgres is first,
then Qdrant with its aliases last, then Redis, then Neo4j.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psycopg
import redis as redis_py
from neo4j.exceptions import GqlError

from plinth.backup import disk_space, store_lock
from plinth.backup.config import Config, Stores
from plinth.backup.inspection import manifest_of
from plinth.backup.manifest import Manifest
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.restore_source import STORES, Source, Wish, begun
from plinth.backup.run import newest
from plinth.backup.session import BackupError, Say, emptied, working
from plinth.backup.stores.grafana import restore as grafana_restore
from plinth.backup.stores.neo4j import backup as neo4j_backup
from plinth.backup.stores.neo4j import restore as neo4j_restore
from plinth.backup.stores.postgres import restore as postgres_restore
from plinth.backup.stores.qdrant import restore as qdrant_restore
from plinth.backup.stores.redis import restore as redis_restore
from plinth.backup.temporary.launcher import current

_BY_NAME = " --replace restores over what is live, --beside under new names."


@dataclass
class Restored:
    """The result of a restore: a message for each item, and the seconds that each store took."""

    snapshot: Snapshot
    manifest: Manifest
    done: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """The restore of one store: its check for problems, and its execution."""

    refusals: Callable[[], list[str]]
    restore: Callable[[], list[str]]


def without_aliases(manifest: Manifest, wish: Wish) -> Wish:
    """Return the request with collections by their own names in place of aliases of the set."""
    aliases = manifest.qdrant.aliases if manifest.qdrant else {}
    names = dict.fromkeys(aliases.get(name, name) for name in wish.collections)
    return replace(wish, collections=tuple(names))


def chosen(manifest: Manifest, wish: Wish) -> tuple[str, ...]:
    """Return the stores of a set that a request includes, in the order of the restore."""
    there = tuple(store for store in STORES if getattr(manifest, store))
    _refuse_unknown("store", wish.stores, there)
    qdrant, postgres = manifest.qdrant, manifest.postgres
    collections = [*(each.name for each in qdrant.collections), *sorted(qdrant.aliases)] if qdrant else []
    _refuse_unknown("collection", wish.collections, collections)
    _refuse_unknown("database", wish.databases, [each.name for each in postgres.databases] if postgres else [])
    named = {"qdrant": wish.collections, "postgres": wish.databases}
    wanted = {*wish.stores, *(store for store, names in named.items() if names)} or there
    return tuple(store for store in STORES if store in wanted)


def run(source: Config, target: Stores, wish: Wish, say: Say) -> Restored:
    """Restore a set of ``source``'s repository into the stores of ``target``, which may be another environment's."""
    with working(source, say) as work, store_lock.restoring(target.postgres, work.turn):
        restic = Restic(work)
        snapshots = restic.open_and_list()
        current().clear(work.scratch)
        emptied(work.scratch)
        snapshot, identity = newest(restic, snapshots, wish.snapshot), _identity(target)
        _refuse_another(wish, snapshot, begun(work.fetched, identity))
        manifest = manifest_of(restic, snapshot)
        if not manifest.complete and not wish.incomplete:
            raise BackupError(
                f"Set {snapshot.short} is incomplete ({manifest.failures[0]}); take another with --snapshot, or add "
                "--incomplete to restore what it holds."
            )
        wish = without_aliases(manifest, wish)
        restored = Restored(snapshot, manifest)
        fetching = Source(work, restic, snapshot, manifest, identity)
        stores = chosen(manifest, wish)
        steps = {store: _step(store, fetching, target, wish) for store in stores}
        _refuse(steps, wish)
        paths = {store: _paths(fetching, wish, store) for store in stores}
        disk_space.require(f"A restore of set {snapshot.short}", _needs(fetching, target, wish, paths))
        # Postgres takes longest: it gets its files first, and restores while the others' files are fetched.
        others = [path for store, named in paths.items() if store != "postgres" for path in named]
        with fetching.fetching(paths.get("postgres", []), others):
            _restore(steps, fetching, restored)
        fetching.forget()
        shutil.rmtree(work.scratch, ignore_errors=True)
        return restored


# These two take long and run in parallel; the others follow one by one.
_TOGETHER = ("postgres", "qdrant")


def _restore(steps: Mapping[str, Step], source: Source, restored: Restored) -> None:
    """Restore every store. Postgres and Qdrant are built in parallel, and take their live names in order."""
    together = [store for store in steps if store in _TOGETHER]
    turns = source.taking_turns(together)

    def one(store: str) -> list[str]:
        began = time.monotonic()
        try:
            done = _said(store, steps[store].restore)
        except BaseException as error:
            turns.end(store, error)
            raise
        turns.end(store)
        restored.seconds[store] = time.monotonic() - began
        return done

    results: dict[str, Future[list[str]]] = {store: Future() for store in together}
    for store in together[1:]:
        # A stop of this process does not wait for the thread: a restore continues when it is run again.
        threading.Thread(target=_settle, args=(results[store], partial(one, store)), daemon=True).start()
    for store in together[:1]:
        _settle(results[store], partial(one, store))
    # A failed store keeps the next one from taking its live names, so that it ends too.
    wait(results.values())
    for store in together:
        restored.done += results[store].result()
    for store in [store for store in steps if store not in together]:
        began = time.monotonic()
        restored.done += _said(store, steps[store].restore)
        restored.seconds[store] = time.monotonic() - began


def _settle(result: Future[list[str]], call: Callable[[], list[str]]) -> None:
    try:
        result.set_result(call())
    except Exception as error:
        result.set_exception(error)


def _identity(target: Stores) -> str:
    """Return what distinguishes the restore journals of different targets: the addresses of the stores."""
    qdrant = target.qdrant.urls if target.qdrant else ()
    others = [f"{store.host}:{store.port}" for store in (target.postgres, target.redis, target.neo4j) if store]
    return hashlib.sha256(" ".join((*qdrant, *others)).encode()).hexdigest()[:8]


def _refuse_another(wish: Wish, newest_one: Snapshot, unended: Sequence[str]) -> None:
    """Refuse an ambiguous resume: a set that is newer than a killed restore may hold half-restored stores."""
    others = [short for short in unended if short != newest_one.short]
    if others and not wish.snapshot:
        raise BackupError(
            f"A restore of set {others[0]} was begun there and has not ended, and {newest_one.short} is newer; go on "
            f"with --snapshot {others[0]}, or begin with the newer one: --snapshot {newest_one.short}."
        )


def _refuse(steps: dict[str, Step], wish: Wish) -> None:
    """Raise with every problem of every store, before anything is changed."""
    said = [sentence for store, step in steps.items() for sentence in _said(store, step.refusals)]
    if said:
        more = "" if wish.replace or wish.beside else _BY_NAME
        raise BackupError(f"{' '.join(said)} Nothing was touched.{more}")


def _paths(source: Source, wish: Wish, store: str) -> list[str]:
    """Return the files that a store is restored from, without those that an earlier, killed run has used."""
    known, made = source.manifest, source.made()
    if store == "postgres" and known.postgres:
        databases = [
            each for each in postgres_restore.wanted(known.postgres, wish) if f"postgres/{each.name}" not in made
        ]
        return [known.postgres.globals_path, *(each.path for each in databases)]
    if store == "qdrant" and known.qdrant:
        collections = [each for each in qdrant_restore.wanted(known.qdrant, wish) if f"qdrant/{each.name}" not in made]
        return [shard.path for each in collections for shard in each.shards]
    if store == "neo4j" and known.neo4j:
        return [known.neo4j.nodes_path, known.neo4j.relationships_path]
    part = known.redis if store == "redis" else known.grafana
    return [part.path] if part else []


def _needs(source: Source, target: Stores, wish: Wish, paths: Mapping[str, Sequence[str]]) -> dict[Path, int]:
    """Return the disk space for what an earlier, killed run has not yet fetched and not yet begun to create."""
    known = source.manifest
    named = {path for each in paths.values() for path in each}
    needs = disk_space.of_restore(
        source.work.fetched,
        target.data,
        known,
        [path for path in named if not source.is_here(path)],
        [each for each in (known.postgres.databases if known.postgres else ()) if each.path in named],
        [
            each
            for each in (known.qdrant.collections if known.qdrant else ())
            if any(shard.path in named for shard in each.shards)
        ],
        twice=wish.replace,
    )
    if "neo4j" in paths and target.data:
        needs[target.data] += disk_space.graph(known)
    if known.redis and "redis" in paths:
        # A temporary server reads a copy of it.
        needs[source.work.scratch] = known.piece(known.redis.path).size
    return needs


def _said(store: str, call: Callable[[], list[str]]) -> list[str]:
    try:
        return call()
    except (psycopg.Error, redis_py.RedisError, GqlError) as error:
        words = neo4j_backup.words(error)
        raise BackupError(f"{store} was not restored: {words}; run the restore again, it goes on.") from error


def _step(store: str, source: Source, target: Stores, wish: Wish) -> Step:
    known = source.manifest
    if store == "postgres" and known.postgres and target.postgres:
        postgres = (source, known.postgres, target.postgres, wish)
        return Step(lambda: postgres_restore.refusals(*postgres), lambda: postgres_restore.restore(*postgres))
    if store == "qdrant" and known.qdrant and target.qdrant:
        qdrant = (source, known.qdrant, target.qdrant, wish)
        return Step(lambda: qdrant_restore.refusals(*qdrant), lambda: qdrant_restore.restore(*qdrant))
    if store == "redis" and known.redis and target.redis:
        redis = (source, known.redis, target.redis, wish)
        return Step(lambda: redis_restore.refusals(*redis), lambda: redis_restore.restore(*redis))
    if store == "neo4j" and known.neo4j and target.neo4j:
        graph = (source, known.neo4j, target.neo4j, wish)
        return Step(lambda: neo4j_restore.refusals(*graph), lambda: neo4j_restore.restore(*graph))
    if store == "grafana" and known.grafana:
        part = known.grafana
        return Step(list, lambda: grafana_restore.restore(source, part))
    raise BackupError(f"The target has no {store} to restore into; leave it out by naming the others with --store.")


def _refuse_unknown(what: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise BackupError(f"The set holds no {what} '{unknown[0]}'; it has {', '.join(there) or 'none'}.")
