"""The restore drill: the newest set is restored into temporary instances and compared with what was saved.

The instances are programs of this machine: a real qdrant or the embedded engine, Postgres, Redis. A store whose program
is not installed fails the drill, except Neo4j, which few machines have: its files are read, and the result says so.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis as redis_py
from neo4j import WRITE_ACCESS
from neo4j.exceptions import GqlError

from plinth.backup import disk_space
from plinth.backup.config import Config
from plinth.backup.inspection import manifest_of
from plinth.backup.manifest import GrafanaPart, Manifest, Neo4jPart, Piece, PostgresPart, QdrantPart, RedisPart
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.restore_source import LONGEST, shortened
from plinth.backup.run import newest
from plinth.backup.session import BackupError, Say, Work, emptied, working
from plinth.backup.stores.neo4j import restore as neo4j_restore
from plinth.backup.stores.neo4j.backup import connect as connect_neo4j
from plinth.backup.stores.neo4j.backup import version, words
from plinth.backup.stores.postgres import recreate as postgres_recreate
from plinth.backup.stores.qdrant import recreate as qdrant_recreate
from plinth.backup.stores.qdrant.node_client import Node
from plinth.backup.stores.redis.backup import connect, digest, keyspace
from plinth.backup.temporary import instances
from plinth.backup.temporary.launcher import current
from plinth.errors import UserError
from plinth.programs.executables import find
from plinth.programs.neo4j import PROGRAM as NEO4J
from plinth.qdrant.client import collection_path
from plinth.status_files.backup_runs import Result, Run, record
from plinth.system import beneath


@dataclass(frozen=True)
class Drilled:
    """The result of a drill: seconds of each store from empty to compared, and each difference from the saved data."""

    snapshot: Snapshot
    manifest: Manifest
    seconds: dict[str, float]
    problems: dict[str, tuple[str, ...]]
    unproven: dict[str, str] = field(default_factory=dict)

    @property
    def result(self) -> Result:
        """Return `ok` when every store of a complete set came back as it was saved."""
        return "failed" if any(self.problems.values()) else "ok" if self.manifest.complete else "incomplete"

    def result_of(self, store: str) -> Result:
        """Return the result of one store, `incomplete` where only its files were read."""
        return "failed" if self.problems[store] else "incomplete" if store in self.unproven else "ok"

    @property
    def told(self) -> dict[str, tuple[str, ...]]:
        """Return the messages of each store: what differs from the saved data, and what is untested."""
        return {s: said or tuple(filter(None, (self.unproven.get(s),))) for s, said in self.problems.items()}


class Drill:
    """A drill of one set, restored store by store into temporary instances."""

    def __init__(self, work: Work, restic: Restic, snapshot: Snapshot, manifest: Manifest) -> None:
        self._work, self._restic, self._snapshot, self._manifest = work, restic, snapshot, manifest
        self._launcher = current()
        self.unproven: dict[str, str] = {}

    def stores(self) -> dict[str, Callable[[], list[str]]]:
        """Return the restore of each store in the set, by the name of the store."""
        known = self._manifest
        found: dict[str, Callable[[], list[str]]] = {}
        if known.postgres:
            found["postgres"] = lambda part=known.postgres: self._postgres(part)  # type: ignore[misc]
        if known.qdrant:
            found["qdrant"] = lambda part=known.qdrant: self._qdrant(part)  # type: ignore[misc]
        if known.redis:
            found["redis"] = lambda part=known.redis: self._redis(part)  # type: ignore[misc]
        if known.neo4j:
            found["neo4j"] = lambda part=known.neo4j: self._neo4j(part)  # type: ignore[misc]
        if known.grafana:
            found["grafana"] = lambda part=known.grafana: self._grafana(part)  # type: ignore[misc]
        return found

    def fetch(self, path: str) -> tuple[Path, Piece]:
        """Fetch a file of the set and compare it with its checksum."""
        piece = self._manifest.piece(path)
        fetched = self._work.scratch / "set"
        with beneath.create(fetched, path) as file:
            digest = self._restic.fetch(self._snapshot, piece, file)
        if digest != piece.sha256:
            raise BackupError(f"{path} of set {self._snapshot.short} is not what was saved.")
        return fetched / path, piece

    def _postgres(self, part: PostgresPart) -> list[str]:
        said = []
        with instances.postgres(self._work.scratch / "postgres", self._launcher) as server:
            roles, _ = self.fetch(part.globals_path)
            postgres_recreate.make_roles(server, roles.read_text())
            for saved in part.databases:
                dump, _ = self.fetch(saved.path)
                name = shortened(f"drill_{saved.name}", LONGEST)
                postgres_recreate.rebuild(self._work, server, saved, dump, name)
                said += postgres_recreate.settled(server, saved, name)
                if note := postgres_recreate.not_compared(saved):
                    self.unproven["postgres"] = note
                postgres_recreate.drop(server, name)
                dump.unlink()
        return said

    def _qdrant(self, part: QdrantPart) -> list[str]:
        said = []
        with instances.qdrant(part.engine, self._work.scratch / "qdrant", self._launcher) as engine:
            node = Node(engine.url, engine.api_key)
            for saved in part.collections:
                if part.engine == "embedded":
                    qdrant_recreate.recover(
                        node, saved, saved.name, self.fetch, engine.snapshots, self._launcher, self._work.say
                    )
                else:
                    qdrant_recreate.rebuild([node], saved, saved.name, self.fetch, self._work.say)
                said += qdrant_recreate.differences(node, saved, saved.name)
                node.call("DELETE", collection_path(saved.name))
                for shard in saved.shards:
                    beneath.remove(self._work.scratch / "set", shard.path)
        return said

    def _redis(self, part: RedisPart) -> list[str]:
        rdb, _ = self.fetch(part.path)
        said = []
        with instances.redis_server(self._work.scratch / "redis", rdb, self._launcher) as (client, port, password):
            found = keyspace(client)
            for number, keys in part.keys.items():
                count = found.get(number, (0, 0))[0]
                if not keys.low - part.expiring.get(number, 0) <= count <= keys.high:
                    said.append(f"database {number} has {count} keys and had {keys.low}")
                with connect("127.0.0.1", port, password, number) as one:
                    changed = [key for key, known in part.samples.get(number, {}).items() if digest(one, key) != known]
                if changed:
                    said.append(f"database {number}: {len(changed)} sampled keys are not as they were")
        return said

    def _neo4j(self, part: Neo4jPart) -> list[str]:
        nodes, relationships = self.fetch(part.nodes_path)[0], self.fetch(part.relationships_path)[0]
        if wrong := neo4j_restore.compared(part, neo4j_restore.lines(nodes), neo4j_restore.lines(relationships)):
            return wrong
        if find(NEO4J) is None:
            self.unproven["neo4j"] = (
                f"its files hold {neo4j_restore.total(part)} as they were saved, and were restored nowhere, for this "
                f"machine has no neo4j; run the drill where one is on PATH or in {NEO4J.variable}"
            )
            return []
        with (
            instances.neo4j(self._work.scratch / "neo4j", self._launcher) as store,
            connect_neo4j(store, WRITE_ACCESS) as session,
        ):
            if said := neo4j_restore.too_old(version(session), part.version):
                return [said]
            neo4j_restore.rebuild(session, part, nodes, relationships, self._work.say)
        return []

    def _grafana(self, part: GrafanaPart) -> list[str]:
        file, _ = self.fetch(part.path)
        with closing(sqlite3.connect(file)) as database:
            found = database.execute("PRAGMA integrity_check").fetchone()[0]
        return [] if found == "ok" else [f"its database is damaged: {found}"]


def run(config: Config, say: Say, wanted: str | None = None, *, wait_s: float = 0.0) -> Drilled:
    """Drill the newest complete set, or the one named, and record the result in the status file."""
    with working(config, say, wait_s=wait_s) as work:
        began_at, began = time.time(), time.monotonic()
        try:
            drilled = _drill(work, wanted)
        except Exception as error:
            seconds = time.monotonic() - began
            failed = Run(attempted_at=began_at, result="failed", duration_s=seconds, detail=str(error))
            record(config.state, "drill", failed)
            raise
        finally:
            shutil.rmtree(work.scratch, ignore_errors=True)
        done = Run(
            attempted_at=began_at,
            result=drilled.result,
            duration_s=time.monotonic() - began,
            size_bytes=drilled.manifest.size,
            stores={store: drilled.result_of(store) for store in drilled.problems},
            detail=" ".join(f"{store}: {sentence}." for store, said in drilled.told.items() for sentence in said),
        )
        record(config.state, "drill", done)
        return drilled


def _drill(work: Work, wanted: str | None) -> Drilled:
    restic = Restic(work)
    snapshots = restic.open_and_list()
    current().clear(work.scratch)
    emptied(work.scratch)
    snapshot = newest(restic, snapshots, wanted)
    manifest = manifest_of(restic, snapshot)
    disk_space.require(f"A drill of set {snapshot.short}", disk_space.of_drill(work.scratch, manifest))
    drill = Drill(work, restic, snapshot, manifest)
    seconds: dict[str, float] = {}
    problems: dict[str, tuple[str, ...]] = {}
    for store, restore in drill.stores().items():
        work.say(f"drilling {store}")
        began = time.monotonic()
        try:
            said = restore()
        except (UserError, psycopg.Error, redis_py.RedisError, GqlError) as error:
            said = [words(error)]
        seconds[store] = time.monotonic() - began
        problems[store] = tuple(said)
        work.say(f"drilled {store}: {'; '.join(said) or drill.unproven.get(store) or 'as it was saved'}")
    return Drilled(snapshot, manifest, seconds, problems, drill.unproven)
