"""Another Qdrant: scrolled in the order of its ids, with all its vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from plinth.errors import UserError
from plinth.migrate.model import Described, Position, Row, VectorShape
from plinth.migrate.target import count, shapes
from plinth.migrate.vectors import from_json
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.server_state import FoundCollection, read_collection

KEY_VARIABLE = "PLINTH_SOURCE_API_KEY"
MOST_ROWS, PAGE_BYTES, FLOAT_BYTES, PAYLOAD_BYTES = 500, 8 * 2**20, 12, 2000
# The settings that another server adopts; shards and replicas are its own affair.
KEPT = ("hnsw_config", "quantization_config", "on_disk_payload")


@dataclass(frozen=True)
class QdrantOptions:
    """A collection of a server. Its key is in PLINTH_SOURCE_API_KEY."""

    url: str
    collection: str


@contextmanager
def open_qdrant(options: QdrantOptions) -> Iterator[Scrolled]:
    """Open a collection as a source; raises :class:`UserError` if it does not exist."""
    with Qdrant(options.url, os.environ.get(KEY_VARIABLE)) as client:
        aliases = client.aliases()
        name = aliases.get(options.collection, options.collection)
        found = read_collection(client, name)
        if found is None:
            there = ", ".join(client.collections()) or "none"
            raise UserError(f"There is no collection '{name}' at {options.url}; there are {there}.")
        yield Scrolled(client, found, [alias for alias, target in aliases.items() if target == name])


class Scrolled:
    """A collection as a source."""

    def __init__(self, client: Qdrant, found: FoundCollection, aliases: list[str]) -> None:
        self._client, self._found, self._aliases = client, found, aliases
        self._shapes: Mapping[str, VectorShape] = shapes(found.vectors, found.params.get("sparse_vectors") or {})

    def describe(self) -> Described:
        """Describe its vectors, its indexes, and the collection to create from them."""
        found = self._found
        body = {"vectors": found.vectors, "sparse_vectors": found.params.get("sparse_vectors")}
        own = {
            "hnsw_config": {key: value for key, value in found.hnsw.items() if value is not None},
            "quantization_config": found.quantization,
            "on_disk_payload": found.params.get("on_disk_payload"),
        }
        return Described(
            identity={"kind": "qdrant", "collection": found.name, "vectors": dict(found.vectors)},
            namespace=f"qdrant/{found.name}",
            vectors=self._shapes,
            fields={"payload": "as it is"},
            left_out=dict(self._left_out()),
            body={key: value for key, value in {**body, **own}.items() if value},
            indexes={
                name: {key: value for key, value in index.items() if value is not None}
                for name, index in found.indexes.items()
            },
        )

    def _left_out(self) -> Iterator[tuple[str, str]]:
        found = self._found
        if self._aliases:
            yield f"aliases of {found.name}", f"{', '.join(self._aliases)}; none moves by itself: --cutover"
        if found.params.get("sharding_method") == "custom":
            yield "shard keys", "points do not take them along"
        placed = [key for key in ("shard_number", "replication_factor") if (found.params.get(key) or 1) != 1]
        if placed:
            yield (
                "shards and replicas",
                f"{', '.join(f'{key} {found.params[key]}' for key in placed)}; a file sets them",
            )
        for name, given in (("strict mode", found.strict_mode), ("metadata of the collection", found.metadata)):
            values = {key: value for key, value in given.items() if value is not None and value is not False}
            if values:
                yield name, f"{', '.join(sorted(values))}; a collection file sets it"

    def count(self) -> int:
        """Count its points."""
        return count(self._client, self._found.name)

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Yield its points after an id; the size of a page depends on the vectors."""
        floats = sum(shape.size or 100 for shape in self._shapes.values())
        limit = max(2, min(MOST_ROWS, PAGE_BYTES // (floats * FLOAT_BYTES + PAYLOAD_BYTES)))
        while True:
            body = {"limit": limit, "offset": after, "with_payload": True, "with_vector": True}
            found = self._client.call("POST", f"{collection_path(self._found.name)}/points/scroll", body)
            # The offset is included, if that point still exists.
            rows = [_row(point) for point in found["points"] if point["id"] != after]
            if rows:
                yield rows
                after = rows[-1].position
            if found["next_page_offset"] is None:
                return


def _row(point: Mapping[str, Any]) -> Row:
    return Row(point["id"], point["id"], from_json(point["vector"]), point.get("payload") or {})
