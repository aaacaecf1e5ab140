"""The copy: one reader in order, several writers, and a checkpoint behind the oldest unacknowledged write."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from plinth.errors import UserError
from plinth.migrate.checkpoint import Checkpoint, Progress, Rejected, State
from plinth.migrate.digest import Point, added, canonical, digest
from plinth.migrate.model import Key, Position, Row, Source
from plinth.migrate.point_ids import point_id
from plinth.migrate.target import Wanted
from plinth.migrate.upsert import batches, encode, send
from plinth.migrate.vectors import Unfit, prepared
from plinth.qdrant.client import Qdrant

SAVE_EVERY_S = 0.5


@dataclass(frozen=True)
class Pace:
    """The speed of a copy: the number of concurrent writers, and the rejects after which it stops."""

    streams: int = 2
    max_rejects: int = 1000


@dataclass(frozen=True)
class _Page:
    last: Position
    written: int
    rejected: Sequence[Rejected]
    digest: int


def copy(
    source: Source,
    client: Qdrant,
    target: Wanted,
    checkpoint: Checkpoint,
    state: State,
    pace: Pace,
    on_progress: Callable[[Progress], None],
) -> Checkpoint:
    """Copy what is left; returns the final checkpoint. Raises :class:`UserError`; acknowledged points are kept."""
    namespace = str(checkpoint.plan["namespace"])
    waiting: deque[Future[_Page]] = deque()
    saved = time.monotonic()

    def acknowledge() -> None:
        nonlocal checkpoint, saved
        checkpoint = _with(checkpoint, waiting.popleft().result(), state)
        on_progress(checkpoint.progress)
        if checkpoint.progress.rejected > pace.max_rejects:
            raise UserError(_too_many(checkpoint, state), exit_code=1)
        if time.monotonic() - saved > SAVE_EVERY_S:
            state.save(checkpoint)
            saved = time.monotonic()

    with ThreadPoolExecutor(pace.streams) as writers:
        try:
            for rows in source.pages(checkpoint.progress.last):
                # Rows that are read and not yet written are held in memory.
                while len(waiting) > pace.streams:
                    acknowledge()
                waiting.append(writers.submit(_write, client, target, namespace, rows))
            while waiting:
                acknowledge()
        except KeyboardInterrupt:
            raise UserError("Stopped. Run the same command again to go on from here.", exit_code=1) from None
        finally:
            for pending in waiting:
                pending.cancel()
            state.save(checkpoint)
    checkpoint = replace(checkpoint, progress=replace(checkpoint.progress, ended=True))
    state.save(checkpoint)
    return checkpoint


def as_point(row: Row, namespace: str, target: Wanted) -> Point:
    """Convert a row to a point; raises :class:`Unfit` if that is impossible."""
    if row.broken:
        raise Unfit(row.broken)
    clash = next((name for name, value in target.fixed.items() if row.payload.get(name, value) != value), None)
    if clash:
        raise Unfit(f"it has another '{clash}', {row.payload[clash]!r}, than is set")
    point = Point(point_id(row.key, namespace), prepared(row.vectors, target.shapes), {**row.payload, **target.fixed})
    tenant = target.spec.tenant if target.spec else None
    if tenant and point.payload.get(tenant) is None:
        raise Unfit(f"it has no '{tenant}', without which no search of {target.name} finds it; see --set")
    try:
        canonical(point.payload)
    except TypeError as error:
        raise Unfit(f"the payload is no JSON: {error}") from error
    return point


def as_points(rows: Sequence[Row], namespace: str, target: Wanted) -> tuple[list[tuple[Key, Point]], list[Rejected]]:
    """Convert rows to points; also returns the rejected ones."""
    points, rejected = [], []
    for row in rows:
        try:
            points.append((row.key, as_point(row, namespace, target)))
        except Unfit as unfit:
            rejected.append(Rejected(row.key, str(unfit)))
    return points, rejected


def _write(client: Qdrant, target: Wanted, namespace: str, rows: Sequence[Row]) -> _Page:
    points, rejected = as_points(rows, namespace, target)
    refused: list[Rejected] = []
    for batch in batches([(key, encode(point)) for key, point in points], target.batch_size):
        refused += send(client, target.name, batch)
    keys = {row.key for row in refused}
    total = 0
    for key, point in points:
        if key not in keys:
            total = added(total, digest(point))
    return _Page(rows[-1].position, len(points) - len(refused), [*rejected, *refused], total)


def _with(checkpoint: Checkpoint, page: _Page, state: State) -> Checkpoint:
    progress = checkpoint.progress.after(page.last, page.written, len(page.rejected), page.digest)
    # Before the checkpoint that counts them: after a kill between the two the same rows are written again.
    end = state.reject(page.rejected, checkpoint.rejects_bytes)
    return replace(checkpoint, progress=progress, rejects_bytes=end)


def _too_many(checkpoint: Checkpoint, state: State) -> str:
    return (
        f"{checkpoint.progress.rejected} of the first {checkpoint.progress.read} rows are rejected, so this stops; see "
        f"why in {state.rejects}, mend the source or the choice of columns, or allow more with --max-rejects."
    )
