"""Compare the collection with its source: every row, field by field, then the searches."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

from plinth.migrate.checkpoint import Checkpoint
from plinth.migrate.digest import Point, added, canonical, digest
from plinth.migrate.json_values import spelled
from plinth.migrate.model import Source, VectorShape
from plinth.migrate.recall_check import Query, draw, learn, overlap, searched
from plinth.migrate.target import Wanted, count, fetch, inspect
from plinth.migrate.transfer import as_points
from plinth.migrate.upsert import encode, upsert
from plinth.migrate.vectors import near
from plinth.qdrant.client import Qdrant

EXAMPLES = 20
EXACT_OVERLAP = 0.999
STREAMS = 2


@dataclass(frozen=True)
class Compared:
    """Rows against points. ``rejected`` are the rows that cannot be points; the digests cover both sides.

    ``as_text`` counts the rows by the field in which a number became text.
    """

    rows: int = 0
    equal: int = 0
    missing: int = 0
    different: int = 0
    rejected: int = 0
    digest_source: int = 0
    digest_target: int = 0
    examples: tuple[str, ...] = ()
    as_text: Mapping[str, int] = field(default_factory=dict)

    def and_(self, other: Compared) -> Compared:
        """Add two results."""
        return Compared(
            self.rows + other.rows,
            self.equal + other.equal,
            self.missing + other.missing,
            self.different + other.different,
            self.rejected + other.rejected,
            added(self.digest_source, other.digest_source),
            added(self.digest_target, other.digest_target),
            (*self.examples, *other.examples)[:EXAMPLES],
            Counter(self.as_text) + Counter(other.as_text),
        )


@dataclass(frozen=True)
class Searches:
    """The recall@10 of an exact and of a usual search; None where nothing can be searched."""

    queries: int = 0
    exact_overlap: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Verification:
    """The whole comparison. ``points`` is the collection's count, ``before`` that before the migration."""

    compared: Compared
    points: int
    before: int
    copied_digest: int | None
    searches: Searches = field(default_factory=Searches)

    @property
    def others(self) -> int:
        """The number of points that come from no row of the source."""
        return self.points - self.compared.equal - self.compared.different


def difference(sent: Point, found: Point | None, shapes: Mapping[str, VectorShape]) -> str:
    """Describe how a point differs from its row; empty if it does not."""
    if found is None:
        return "missing"
    for name in sorted({*sent.payload, *found.payload}):
        one, other = ({name: side.payload[name]} if name in side.payload else None for side in (sent, found))
        if other is None:
            return f"payload has no '{name}'"
        if one is None:
            return f"payload has '{name}', which the row has not"
        if canonical(one) != canonical(other):
            return f"payload '{name}' is {_brief(other[name])}, in the row {_brief(one[name])}"
    if set(sent.vectors) != set(found.vectors):
        return f"vectors {sorted(found.vectors)}, in the row {sorted(sent.vectors)}"
    for name, vector in sent.vectors.items():
        if not near(found.vectors[name], vector, shapes[name].datatype):
            return f"vector '{name}' differs" if name else "vector differs"
    return ""


def compare(points: Sequence[Point], found: Mapping[int | str, Point], shapes: Mapping[str, VectorShape]) -> Compared:
    """Compare points as they are sent with those that were read back."""
    total = Compared(rows=len(points))
    for sent in points:
        there = found.get(sent.id)
        words = difference(sent, there, shapes)
        own = digest(sent)
        # A stored vector may be rounded by its type; one that is near enough counts as equal.
        kept = own if there and not words else digest(there) if there else 0
        one = Compared(
            equal=int(not words),
            missing=int(there is None),
            different=int(there is not None and bool(words)),
            digest_source=own,
            digest_target=kept,
            examples=(f"{sent.id}: {words}",) if words else (),
            as_text=dict.fromkeys(spelled(sent.payload), 1),
        )
        total = total.and_(one)
    return total


def verify(
    source: Source, client: Qdrant, target: Wanted, checkpoint: Checkpoint, on_progress: Callable[[int], None]
) -> Verification:
    """Read the source again, and every point of it."""
    using = searched(target)
    queries = draw(client, target, using) if using is not None else []
    total = Compared()
    for part in _parts(source, client, target, str(checkpoint.plan["namespace"]), queries, using):
        total = total.and_(part)
        on_progress(total.rows)
    progress = checkpoint.progress
    made = Verification(
        total, count(client, target.name), checkpoint.before, progress.digest if progress.ended else None
    )
    if not queries or using is None or made.others:
        return made
    exact = overlap(client, target, queries, using, {"exact": True})
    usual = overlap(client, target, queries, using, target.spec.search.params() if target.spec else {})
    return replace(made, searches=Searches(len(queries), exact, usual))


def mend(
    source: Source, client: Qdrant, target: Wanted, checkpoint: Checkpoint, on_progress: Callable[[int], None]
) -> int:
    """Write the rows again that are missing or differ; returns how many."""
    mended = read = 0
    for rows in source.pages(None):
        points = [point for _, point in as_points(rows, str(checkpoint.plan["namespace"]), target)[0]]
        for batch in _batched(points, target.batch_size):
            found = fetch(client, target.name, [point.id for point in batch])
            stale = [point for point in batch if difference(point, found.get(point.id), target.shapes)]
            if stale:
                upsert(client, target.name, [encode(point) for point in stale])
            mended += len(stale)
        read += len(rows)
        on_progress(read)
    return mended


def gaps(found: Verification, recall_floor: float) -> list[str]:
    """List the differences between source and collection as sentences; empty if there are none."""
    compared, searches = found.compared, found.searches
    said = []
    if compared.missing:
        said.append(f"{compared.missing} rows have no point.")
    if compared.different:
        said.append(f"{compared.different} points differ from their rows.")
    if compared.rejected:
        said.append(f"{compared.rejected} rows are rejected: they can be no point of this collection.")
    if found.others and not found.before:
        said.append(f"{found.others} points come from no row of the source: rows were deleted, or another writes here.")
    if compared.digest_source != compared.digest_target and not (compared.missing or compared.different):
        said.append("The digests differ.")
    if searches.exact_overlap is not None and searches.exact_overlap < EXACT_OVERLAP:
        said.append(f"An exact search finds {searches.exact_overlap:.4f} of the true nearest ten.")
    if searches.recall is not None and searches.recall < recall_floor:
        said.append(f"A usual search finds {searches.recall:.3f} of the true nearest ten, under {recall_floor}.")
    return said


def clash(source: Source, client: Qdrant, target: Wanted, namespace: str) -> str:
    """Describe how an existing point differs from a row of the source's first page with its id; empty if none does.

    Keys that are used as ids may also be those of another table, and most tables begin with the same keys.
    """
    if inspect(client, target) is None or not count(client, target.name):
        return ""
    points = [point for _, point in as_points(next(source.pages(None), []), namespace, target)[0]]
    for batch in _batched(points, target.batch_size):
        there = fetch(client, target.name, [point.id for point in batch])
        for point in batch:
            if point.id in there and (words := difference(point, there[point.id], target.shapes)):
                return f"{point.id}: {words}"
    return ""


def _parts(
    source: Source, client: Qdrant, target: Wanted, namespace: str, queries: Sequence[Query], using: str | None
) -> Iterator[Compared]:
    waiting: deque[Future[Compared]] = deque()
    with ThreadPoolExecutor(STREAMS) as readers:
        for rows in source.pages(None):
            while len(waiting) > STREAMS:
                yield waiting.popleft().result()
            keyed, rejected = as_points(rows, namespace, target)
            points = [point for _, point in keyed]
            if queries and using is not None:
                learn(queries, points, using, target.shapes[using])
            waiting.append(readers.submit(_compared, client, target, points, len(rejected)))
        while waiting:
            yield waiting.popleft().result()


def _compared(client: Qdrant, target: Wanted, points: Sequence[Point], rejected: int) -> Compared:
    total = Compared(rows=rejected, rejected=rejected)
    for batch in _batched(points, target.batch_size):
        found = fetch(client, target.name, [point.id for point in batch])
        total = total.and_(compare(batch, found, target.shapes))
    return total


def _batched(points: Sequence[Point], size: int) -> Iterator[list[Point]]:
    rest = iter(points)
    while batch := list(islice(rest, size)):
        yield batch


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
