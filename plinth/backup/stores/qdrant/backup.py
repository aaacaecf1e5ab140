"""Back up Qdrant: each shard once from a node with an Active replica, and what no snapshot holds.

The embedded engine has one node, and snapshots of whole collections in its own format.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from plinth.backup.manifest import Collection, Piece, QdrantPart, Question, Range, Shard
from plinth.backup.session import Say, Work
from plinth.backup.set_paths import folder
from plinth.backup.stores.qdrant import probe_queries
from plinth.backup.stores.qdrant.node_client import Journal, Node
from plinth.backup.stores.qdrant.shard_plan import Plan, Take, plan_collection
from plinth.printable import visible
from plinth.qdrant.client import QdrantError, QdrantUnreachable, collection_path
from plinth.qdrant.load_mark import PREFIX, is_load_gates, metadata_of

DIRECTORY = "qdrant"
# A snapshot that is being created cannot be cancelled.
PATIENCE_S = 10.0


class Taking:
    """A backup of Qdrant, or of ``only`` one collection, into ``stage``; the journal ``own`` records pending snapshots.

    ``failures`` are messages about what is not in it. ``stands`` is set once every snapshot is created, while the last
    one is still to be downloaded: what other stores save from then on is younger than all points of the set.
    """

    def __init__(self, stage: Path, own: Path, say: Say, connections: Sequence[Node], only: str | None = None) -> None:
        self._stage, self._say, self._only = stage, say, only
        self.stands = Event()
        self._seen: set[str] = set()
        self._is_last_collection = False
        self._nodes = connections
        self._journal = Journal(own)
        self._load: Counter[int] = Counter()
        self.failures: list[str] = []
        self.pieces: dict[str, Piece] = {}

    def take(self) -> QdrantPart | None:
        """Return everything that can be read, or None where no node answers."""
        alive = self._alive()
        if not alive:
            return None
        asked = self._nodes[alive[0]]
        embedded = asked.is_embedded
        taken: list[Collection] = []
        # Listed again until there is no new one: a collection created during the backup belongs to the set.
        while not self.stands.is_set() and (new := self._new(asked)):
            for name in new:
                self._seen.add(name)
                self._is_last_collection = name == new[-1]
                try:
                    if self._only or not self._is_load_gates(name, asked):
                        taken.append(self._collection(name, asked, alive, embedded=embedded))
                except (QdrantError, LookupError, TypeError, ValueError) as error:
                    shutil.rmtree(self._stage / DIRECTORY / folder(name), ignore_errors=True)
                    self.failures.append(f"{visible(name)} was not taken: {_line(error)}")
        return QdrantPart(
            engine="embedded" if embedded else "server",
            version=asked.version,
            peers={} if embedded else self._peers(asked),
            aliases=self._aliases(asked),
            collections=tuple(taken),
        )

    def _new(self, asked: Node) -> list[str]:
        return [name for name in asked.collections() if name not in self._seen and self._only in (None, name)]

    def _is_load_gates(self, name: str, asked: Node) -> bool:
        """Whether a collection is, or was, the load gate's: a run that ends during the backup deletes it."""
        if not name.startswith(PREFIX):
            return False
        try:
            description = asked.collection(name)
        except QdrantError:
            # Its description is reported where the collection is backed up.
            return False
        left_out = description is None or is_load_gates(name, metadata_of(description))
        if left_out:
            self._say(f"leaving out qdrant {visible(name)}, which is the load gate's")
        return left_out

    def _alive(self) -> list[int]:
        alive = []
        for number, node in enumerate(self._nodes):
            try:
                node.collections()
                alive.append(number)
            except QdrantUnreachable as error:
                self._say(f"qdrant: {error}")
        if not alive:
            self.failures.append(f"Qdrant answers at none of {', '.join(node.url for node in self._nodes)}.")
        return alive

    def _aliases(self, asked: Node) -> dict[str, str]:
        try:
            return asked.aliases()
        except (QdrantError, LookupError, TypeError) as error:
            self.failures.append(f"The aliases of Qdrant were not taken: {_line(error)}")
            return {}

    def _peers(self, asked: Node) -> dict[int, str]:
        cluster = asked.call("GET", "/cluster")
        return {int(peer): str(about["uri"]) for peer, about in (cluster.get("peers") or {}).items()}

    def _collection(self, name: str, asked: Node, alive: Sequence[int], *, embedded: bool) -> Collection:
        path = collection_path(name)
        described = self._described(asked, name)
        if embedded:
            planned = Plan(1, (Take(0, None, alive[0], 0),), ())
        else:
            planned = plan_collection(
                name, {number: self._nodes[number].call("GET", f"{path}/cluster") for number in alive}, self._load
            )
        if planned.failures:
            # A collection with a missing shard answers no search and no count.
            self.failures += planned.failures
            shards = self._shards(name, asked, planned, embedded=embedded)
            return Collection(name=name, described=described, shard_count=planned.shard_count, shards=shards)
        points = probe_queries.sampled(asked, name)
        answers, before = self._answers(asked, name, probe_queries.choose(points, described)), asked.count(name)
        shards = self._shards(name, asked, planned, embedded=embedded)
        samples, after = probe_queries.digests(points), asked.count(name)
        still = set(probe_queries.again(asked, name, samples))
        return Collection(
            name=name,
            described=described,
            points=Range.of(before, after),
            shard_count=planned.shard_count,
            shards=shards,
            questions=probe_queries.steady(answers, self._answers(asked, name, probe_queries.bodies_of(answers))),
            samples=tuple(sample for sample in samples if sample in still),
        )

    def _described(self, asked: Node, name: str) -> dict[str, Any]:
        """Return the description, or nothing where a shard is unreachable: a server then describes nothing of it."""
        try:
            found: dict[str, Any] = asked.call("GET", collection_path(name))
        except QdrantError as error:
            if error.status == 404:
                raise
            self.failures.append(f"The configuration of {visible(name)} was not taken: {_line(error)}")
            return {}
        return found

    def _shards(self, name: str, asked: Node, planned: Plan, *, embedded: bool) -> tuple[Shard, ...]:
        def stands() -> None:
            with suppress(QdrantError):
                if self._is_last_collection and take is planned.takes[-1] and not self._new(asked):
                    self.stands.set()

        taken = []
        for take in planned.takes:
            taken.append(self._shard(name, take, stands, embedded=embedded))
        return tuple(shard for shard in taken if shard)

    def _answers(self, asked: Node, name: str, bodies: Sequence[dict[str, Any]]) -> list[Question]:
        try:
            return probe_queries.asked(asked, name, bodies)
        except QdrantUnreachable:
            raise
        except QdrantError as error:
            # Strict mode may forbid exact searches. The data is saved all the same, without this proof of it.
            self._say(f"qdrant {visible(name)}: no probe set: {_line(error)}")
            return []

    def _shard(self, name: str, take: Take, stands: Callable[[], None], *, embedded: bool) -> Shard | None:
        what = visible(name) if embedded else f"{visible(name)} shard {take.shard}"
        self._say(f"taking qdrant {what}")
        inner = "" if embedded else f"/shards/{take.shard}"
        file = f"{DIRECTORY}/{folder(name)}/{take.shard}.snapshot"
        to = self._stage / file
        to.parent.mkdir(parents=True, exist_ok=True)
        node = self._nodes[take.node]
        try:
            theirs, measure = node.take(f"{collection_path(name)}{inner}/snapshots", to, self._journal, stands)
        except QdrantError as error:
            to.unlink(missing_ok=True)
            self.failures.append(f"{what} was not taken: {_line(error)}")
            for sentence in self._journal.clean(self._nodes):
                self._say(f"qdrant: {sentence}")
            return None
        piece = measure.piece(file)
        problem = _problem(theirs, piece.sha256, to)
        if problem:
            to.unlink()
            self.failures.append(f"{what} was not taken: {problem}")
            return None
        self.pieces[file] = piece
        return Shard(id=take.shard, key=take.key, peer=take.peer, path=file, taken_at=time.time())


class TakingMeanwhile:
    """A backup of Qdrant in a separate thread.

    The other stores are backed up once its snapshots are created, while they are downloaded. A stop of the process
    waits only briefly for the thread: the next run removes what it leaves.
    """

    def __init__(self, work: Work, connections: Sequence[Node]) -> None:
        self._work, self._nodes = work, connections
        self._taking = Taking(work.stage, work.config.directory, work.say, connections)
        self._result: Future[QdrantPart | None] = Future()
        Thread(target=self._take, daemon=True).start()

    def await_snapshots(self) -> None:
        """Wait until every snapshot is created, or until that has failed."""
        self._taking.stands.wait()

    def taken(self) -> tuple[QdrantPart | None, list[str]]:
        """Return everything of Qdrant that could be read, and a message for each failure."""
        try:
            part = self._result.result()
        except QdrantError as error:
            return None, [*self._taking.failures, f"Qdrant was not taken: {_line(error)}"]
        self._work.measured.update(self._taking.pieces)
        return part, self._taking.failures

    def give_up(self) -> None:
        """Stop the backup, and remove from the nodes what it has requested."""
        for node in self._nodes:
            node.give_up()
        wait([self._result], PATIENCE_S)

    def _take(self) -> None:
        try:
            self._result.set_result(self._taking.take())
        except BaseException as error:
            self._result.set_exception(error)
        finally:
            self._taking.stands.set()


def described(connections: Sequence[Node]) -> dict[str, Any]:
    """Return `GET /collections/{name}` of each collection by name.

    A collection that no node describes is left out here, and the backup reports it.
    """
    answers: dict[str, Any] = {}
    for node in connections:
        with suppress(QdrantError):
            names = node.collections()
            for name in names:
                with suppress(QdrantError, LookupError, TypeError):
                    answer = node.call("GET", collection_path(name))
                    is_taken = not is_load_gates(name, metadata_of(answer))
                    if is_taken and isinstance(answer["config"]["params"], dict):
                        answers[name] = answer
            break
    return answers


def _line(error: Exception) -> str:
    words = str(error) if isinstance(error, QdrantError) else f"Qdrant tells of it as none does ({error!r})"
    return visible(" ".join(words.split())[:300])


def _problem(theirs: str | None, ours: str, file: Path) -> str | None:
    if theirs is not None and theirs != ours:
        return f"what came has checksum {ours[:12]} and the server wrote {theirs[:12]}; run the backup again."
    if file.stat().st_size == 0:
        return "the snapshot is empty."
    return None
