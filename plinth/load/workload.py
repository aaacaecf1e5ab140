"""The operations of a run and the correctness of their answers, for every protocol; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

SCRATCH = "load.scratch"
FIRST_SCRATCH_ID = 1_000_000_000
# More points than any worker of a run writes.
SCRATCH_IDS_A_WORKER = 100_000_000
BATCH = 100
QUERIES = frozenset({"search", "filtered_search", "hybrid_search"})


@dataclass(frozen=True)
class Ask:
    """One operation. ``row`` is the query's; ``conditions`` are payload values that every hit must have."""

    name: str
    row: int
    tenant: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    word: str | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The parsed answer of a server: points with the requested payload, or the result of a write."""

    points: Sequence[tuple[int, Mapping[str, str]]] = ()
    completed: bool = False


@dataclass(frozen=True)
class Outcome:
    """The error of an answer, or how many of the nearest points it found."""

    error: str | None = None
    found: int = 0
    nearest: int = 0


@dataclass(frozen=True)
class Queries:
    """For each query its tenant, its part of speech, its word and the ids of the exact nearest points.

    ``matched`` is whether the tenant has a point of that part.
    """

    tenants: Sequence[str]
    parts: Sequence[str]
    words: Sequence[str]
    truth: Sequence[frozenset[int]]
    matched: Sequence[bool]


class Workload:
    """Operations by name on ``points`` points with ids from 0.

    Points that a run writes belong to a separate tenant, ``scratch``, and each worker has its own ids for them.
    """

    def __init__(self, queries: Queries, points: int, worker: int = 0, scratch: str = SCRATCH) -> None:
        self._queries = queries
        self._points = points
        self._scratch = scratch
        self._first = FIRST_SCRATCH_ID + worker * SCRATCH_IDS_A_WORKER
        self._written = 0
        self._deleted = 0

    def ask(self, name: str, number: int) -> Ask:
        """Return the n-th operation of a run; ``number`` selects the query or the point."""
        kinds: dict[str, Callable[[str, int], Ask]] = {
            "search": self._search,
            "filtered_search": self._search,
            "hybrid_search": self._search,
            "scroll": self._search,
            "get": self._get,
            "upsert": lambda name, number: self._upsert(name, number, 1),
            "upsert_batch_100": lambda name, number: self._upsert(name, number, BATCH),
            "delete": self._delete,
        }
        return kinds[name](name, number)

    def outcome(self, ask: Ask, answer: Answer) -> Outcome:
        """Judge an answer."""
        if ask.name == "get":
            got = [identifier for identifier, _ in answer.points]
            return Outcome(None if got == list(ask.ids) else f"asked for point {ask.ids[0]}, got {got}")
        if ask.name not in QUERIES and ask.name != "scroll":
            return Outcome(None if answer.completed else "the write was acknowledged, not completed")
        for key, value in {"org_id": ask.tenant, **ask.conditions}.items():
            strangers = sorted({payload[key] for _, payload in answer.points} - {value})
            if strangers:
                return Outcome(f"a request within {value} returned a point of {strangers[0]}")
        # Every tenant has points, but perhaps none that meet a further condition.
        if not answer.points and (ask.name != "filtered_search" or self._queries.matched[ask.row]):
            return Outcome(f"found nothing within {', '.join((ask.tenant, *ask.conditions.values()))}")
        if ask.name != "search":
            return Outcome()
        truth = self._queries.truth[ask.row]
        return Outcome(found=len(truth & {identifier for identifier, _ in answer.points}), nearest=len(truth))

    def _search(self, name: str, number: int) -> Ask:
        row = number % len(self._queries.tenants)
        conditions = {"model": self._queries.parts[row]} if name == "filtered_search" else {}
        word = self._queries.words[row] if name == "hybrid_search" else None
        return Ask(name, row, self._queries.tenants[row], conditions, word)

    def _get(self, name: str, number: int) -> Ask:
        # A prime step spreads the ids: a single hot point would always be cached.
        return Ask(name, 0, "", ids=(number * 7919 % self._points,))

    def _upsert(self, name: str, number: int, count: int) -> Ask:
        first = self._first + self._written
        self._written += count
        return Ask(name, number % len(self._queries.tenants), self._scratch, ids=tuple(range(first, first + count)))

    def _delete(self, name: str, _number: int) -> Ask:
        # The oldest first; before the first upsert an unknown id, which the server accepts.
        self._deleted += 1
        return Ask(name, 0, self._scratch, ids=(self._first + self._deleted - 1,))
