"""The plan of a migration, counted and sampled before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from plinth.migrate.json_values import spelled
from plinth.migrate.model import Described, Source, VectorShape
from plinth.migrate.point_ids import kept
from plinth.migrate.target import Wanted, count, inspect
from plinth.migrate.transfer import as_points
from plinth.migrate.upsert import encode
from plinth.qdrant.client import Qdrant

SAMPLE_PAGES = 1


@dataclass(frozen=True)
class DryRun:
    """``sent_bytes`` estimates the size of the requests from a sample; ``ids`` says how keys become ids."""

    source: str
    collection: str
    made: bool
    rows: int
    points: int
    vectors: Mapping[str, VectorShape]
    fields: Mapping[str, str]
    ids: str
    batch_size: int
    sent_bytes: int
    rejects: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: Mapping[str, str]
    as_text: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        vectors = {name: asdict(shape) for name, shape in self.vectors.items()}
        plain = {key: value for key, value in vars(self).items() if key not in ("vectors", "fields", "left_out")}
        return {**plain, "vectors": vectors, "fields": dict(self.fields), "left_out": dict(self.left_out)}

    def lines(self) -> list[str]:
        """Format the plan as text."""
        there = "is made" if self.made else f"is there with {self.points} points"
        said = [f"{self.source} -> {self.collection}, which {there}"]
        said.append(f"  rows {self.rows}, about {self.sent_bytes / 2**20:.1f} MiB to send, {self.batch_size} a request")
        for name, shape in self.vectors.items():
            said.append(f"  vector {f'{name!r} ' if name else ''}{shape}")
        said.append(f"  ids: {self.ids}")
        width = max((len(name) for name in self.fields), default=0)
        said += [f"  {name:<{width}}  {what}" for name, what in self.fields.items()]
        said += [f"  of the first rows, rejected: {reason}" for reason in self.rejects]
        said += [f"  {name} is left out: {reason}" for name, reason in self.left_out.items()]
        said += [f"  as text, in the first rows: numbers of {name}, which 64 bits do not hold" for name in self.as_text]
        return [*said, *(f"  note: {note}" for note in self.notes), "Nothing was changed."]


def dry_run(source: Source, described: Described, client: Qdrant, target: Wanted) -> DryRun:
    """Plan a migration. Raises :class:`UserError` where the migration would."""
    found = inspect(client, target)
    rows = source.count()
    sample = [row for page in islice(source.pages(None), SAMPLE_PAGES) for row in page]
    points, rejected = as_points(sample, described.namespace, target)
    size = sum(len(encode(point)) for _, point in points) / max(1, len(points))
    return DryRun(
        described.namespace,
        target.name,
        found is None,
        rows,
        count(client, target.name) if found else 0,
        target.shapes,
        described.fields,
        _ids(all(kept(row.key) for row in sample)),
        target.batch_size,
        int(size * rows),
        tuple(f"{one.key}: {one.reason}" for one in rejected[:5]),
        described.notes,
        described.left_out,
        tuple(sorted({name for _, point in points for name in spelled(point.payload)})),
    )


def _ids(as_they_are: bool) -> str:
    if as_they_are:
        return "the keys as they are"
    return "UUIDv5 of the source's name and the key; the key is in the payload"
