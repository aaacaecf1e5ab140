"""One migration from its start or its checkpoint: plan, copy, graph, comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from plinth.errors import UserError
from plinth.migrate.checkpoint import Checkpoint, Progress, State, require_same
from plinth.migrate.model import Described, Source
from plinth.migrate.report import report
from plinth.migrate.target import Wanted, count, finish, inspect, prepare, put_off, wait_green
from plinth.migrate.transfer import Pace, copy
from plinth.migrate.verify import Verification, clash, gaps, verify
from plinth.qdrant.client import Qdrant

RECALL_FLOOR = 0.9


@dataclass(frozen=True)
class Told:
    """Callbacks for progress: rows copied, rows compared, and any other message."""

    copied: Callable[[Progress, int], None]
    compared: Callable[[int, int], None]
    words: Callable[[str], None]


@dataclass(frozen=True)
class Migration:
    """A source, a collection, and the directory with the checkpoint between them."""

    source: Source
    client: Qdrant
    target: Wanted
    state: State
    opened_by: Mapping[str, Any]
    to: str
    described: Described

    @property
    def plan(self) -> dict[str, Any]:
        """Return what must not change between two runs."""
        return {
            "to": self.to,
            "collection": self.target.name,
            "namespace": self.described.namespace,
            "source": {key: value for key, value in self.opened_by.items() if key not in ("dsn_file",)},
            "fields": dict(self.described.fields),
            "set": dict(self.target.fixed),
            "vectors": {name: asdict(shape) for name, shape in self.target.shapes.items()},
        }

    def run(self, pace: Pace, told: Told, recall_floor: float = RECALL_FLOOR) -> dict[str, Any]:
        """Copy what is left and compare; returns the report. Completed work is kept when this raises."""
        checkpoint = self._resumed() or self._begun(told)
        if not checkpoint.progress.ended:
            put_off(self.client, self.target, checkpoint.graph)
            if checkpoint.progress.read:
                told.words(f"Going on after {checkpoint.progress.read} of {checkpoint.rows} rows.")
            checkpoint = copy(
                self.source,
                self.client,
                self.target,
                checkpoint,
                self.state,
                pace,
                lambda progress: told.copied(progress, checkpoint.rows),
            )
        finish(self.client, self.target, checkpoint.graph)
        return self.verify(checkpoint, told, recall_floor)

    def verify(self, checkpoint: Checkpoint, told: Told, recall_floor: float = RECALL_FLOOR) -> dict[str, Any]:
        """Compare; returns the report, which is also written next to the checkpoint."""
        indexed = wait_green(self.client, self.target.name, told.words)
        found = verify(
            self.source, self.client, self.target, checkpoint, lambda rows: told.compared(rows, checkpoint.rows)
        )
        reasons = gaps(found, recall_floor) + self._unwritten(checkpoint, found)
        if not indexed:
            reasons.append(f"{self.target.name} is not indexed yet; compare again: plinth migrate verify.")
        made = report(self.plan, checkpoint, found, reasons, self.described.left_out)
        self.state.save_report(made)
        self.state.save(replace(checkpoint, verdict=made["verdict"]))
        return made

    def restart(self, told: Told) -> None:
        """Delete the checkpoint; its facts about the collection before the first point are kept."""
        old = self.state.load()
        self.state.clear()
        if old is None:
            self.state.save(self._prepared(told))
            return
        told.words("The checkpoint is forgotten; points that were written are written over.")
        same = old.plan["to"] == self.to and old.plan["collection"] == self.target.name
        if same and inspect(self.client, self.target) is not None:
            self.state.save(self._checkpoint(old.before, old.graph, self.source.count()))

    def _resumed(self) -> Checkpoint | None:
        found = self.state.load()
        if found is None:
            return None
        require_same(found, self.plan, self.described.identity, self.state.directory)
        there = 0 if inspect(self.client, self.target) is None else count(self.client, self.target.name)
        if there < found.progress.written:
            raise UserError(
                f"{self.target.name} holds {there} points and {found.progress.written} were written: somebody removed "
                "some, or this is another server. Begin anew: --restart.",
                exit_code=1,
            )
        if found.progress.read == 0:
            prepare(self.client, self.target)
        return found

    def _begun(self, told: Told) -> Checkpoint:
        if words := clash(self.source, self.client, self.target, self.described.namespace):
            raise UserError(
                f"{self.target.name} holds another point under an id of the source ({words}), which would be written "
                "over; choose another --collection, or write over it: --restart.",
                exit_code=1,
            )
        return self._prepared(told)

    def _prepared(self, told: Told) -> Checkpoint:
        told.words("Counting the rows.")
        rows = self.source.count()
        before, graph = prepare(self.client, self.target)
        if before:
            told.words(
                f"{self.target.name} holds {before} points already; those of other ids stay, and its graph is kept."
            )
        begun = self._checkpoint(before, graph, rows)
        # Before building is deferred: a run that is killed then still knows which settings to restore.
        self.state.save(begun)
        return begun

    def _checkpoint(self, before: int, graph: Mapping[str, Any] | None, rows: int) -> Checkpoint:
        return Checkpoint(self.plan, self.described.identity, self.opened_by, rows, before, graph)

    def _unwritten(self, checkpoint: Checkpoint, found: Verification) -> list[str]:
        refused = checkpoint.progress.rejected - found.compared.rejected
        return [f"{refused} rows were rejected while copying; see {self.state.rejects}."] if refused > 0 else []
