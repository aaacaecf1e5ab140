"""The collection that is filled: created before the first point, its graph built after the last one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plinth.errors import UserError
from plinth.migrate.digest import Point
from plinth.migrate.model import UNNAMED, Described, VectorShape
from plinth.migrate.vectors import from_json
from plinth.qdrant.apply import apply, converge, refuse
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.equality import schema
from plinth.qdrant.plan import CreateCollection, CreateIndex, Plan, SwitchAliases, plan_collection
from plinth.qdrant.server_state import FoundCollection, read_collection
from plinth.qdrant.spec import CollectionSpec

BATCH_SIZE = 100
GRAPH = ("m", "payload_m")
INDEX_DEADLINE_S = 3600.0


@dataclass(frozen=True)
class Wanted:
    """The collection to fill. ``spec`` is its file, if there is one; ``body`` and ``indexes`` create it.

    ``fixed`` are payload fields that every point gets, such as the tenant, for a source without tenants.
    """

    name: str
    body: Mapping[str, Any]
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spec: CollectionSpec | None = None
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """The number of points per request (S3-02)."""
        return self.spec.batch_size if self.spec else BATCH_SIZE

    @property
    def shapes(self) -> dict[str, VectorShape]:
        """The shapes of its vectors by name."""
        return shapes(self.body.get("vectors") or {}, self.body.get("sparse_vectors") or {})


def shapes(vectors: Mapping[str, Any], sparse: Mapping[str, Any]) -> dict[str, VectorShape]:
    """Return the vectors of a collection as Qdrant describes them."""
    dense = {UNNAMED: vectors} if "size" in vectors else vectors
    found = {
        name: VectorShape(
            one["size"],
            one["distance"],
            one.get("datatype") or "float32",
            multi=bool(one.get("multivector_config")),
        )
        for name, one in dense.items()
    }
    return found | {name: VectorShape(None, None, sparse=True) for name in sparse}


def wanted(name: str, described: Described, spec: CollectionSpec | None, distance: str | None) -> Wanted:
    """Return the collection of a file, or one made for the source. Raises :class:`UserError` where the two differ."""
    if spec is not None:
        made = Wanted(
            spec.name, spec.create_body(), {field: schema(index) for field, index in spec.payload_indexes.items()}, spec
        )
    elif described.body is not None:
        made = Wanted(name, described.body, described.indexes)
    else:
        made = _from_source(name, described, distance)
    for problem in _misfits(described.vectors, made, distance):
        raise UserError(problem)
    return made


def _from_source(name: str, described: Described, distance: str | None) -> Wanted:
    dense = described.vectors[UNNAMED]
    if dense.size is None:
        raise UserError(
            "The source has no vector, so nobody can tell how many dimensions its collection has, and there is nothing "
            "to migrate; write its first row, or name a collection that a file describes."
        )
    chosen = distance or dense.distance
    if chosen is None:
        raise UserError(
            "The source does not say by which distance its vectors are compared; say it: --distance cosine, euclid, "
            "dot or manhattan (what the model was trained for)."
        )
    vectors = {"size": dense.size, "distance": chosen}
    if dense.datatype != "float32":
        vectors["datatype"] = dense.datatype
    sparse: dict[str, Any] = {name: {} for name, shape in described.vectors.items() if shape.sparse}
    return Wanted(name, {"vectors": vectors} | ({"sparse_vectors": sparse} if sparse else {}))


def _misfits(source: Mapping[str, VectorShape], made: Wanted, distance: str | None) -> list[str]:
    """Describe the source's vectors that the collection cannot hold."""
    own, problems = made.shapes, []
    if set(source) != set(own):
        problems.append(
            f"{made.name} has the vectors {_names(own)} and the source {_names(source)}; choose those that it has, "
            "or another collection."
        )
    for name in set(source) & set(own):
        there, here = source[name], own[name]
        if there.size is not None and there.size != here.size:
            problems.append(
                f"The source's vectors have {there.size} dimensions and {made.name} takes {here.size}; name the "
                "collection of the model that made them."
            )
        said = distance or there.distance
        if said and here.distance and said != here.distance:
            problems.append(
                f"The source compares by {said} and {made.name} by {here.distance}, which finds other neighbours; "
                f"if that is meant, say --distance {here.distance.lower()}."
            )
    return problems


def prepare(client: Qdrant, target: Wanted) -> tuple[int, dict[str, Any] | None]:
    """Create the collection; returns its point count, and the graph settings to restore at the end (:func:`put_off`).

    Payload indexes come before the data. A collection that has points keeps its graph.
    """
    found = inspect(client, target)
    if found is None:
        if target.spec:
            converge(client, target.spec)
        else:
            indexes = (CreateIndex(target.name, name, index) for name, index in target.indexes.items())
            apply(client, Plan((CreateCollection(target.name, target.body), *indexes)))
        found = read_collection(client, target.name)
    if found is None:
        raise QdrantError(f"{client.url} took {target.name} and does not have it; is another run removing it?")
    before = count(client, target.name)
    if before:
        return before, _lost_graph(target, found)
    return 0, {key: found.hnsw[key] for key in GRAPH if found.hnsw.get(key)} or None


def _lost_graph(target: Wanted, found: FoundCollection) -> dict[str, Any] | None:
    # A migration that was killed, and whose checkpoint was removed, has left the graph deferred.
    own = target.spec.hnsw_config.model_dump(exclude_none=True) if target.spec else {}
    lost = {key: own[key] for key in GRAPH if own.get(key) and found.hnsw.get(key) == 0}
    return lost or None


def put_off(client: Qdrant, target: Wanted, graph: Mapping[str, Any] | None) -> None:
    """Defer building the graph while points are loaded."""
    if graph:
        _set_graph(client, target.name, dict.fromkeys(graph, 0))


def inspect(client: Qdrant, target: Wanted) -> FoundCollection | None:
    """Return the existing collection; raises if its vectors differ, or if the name is an alias."""
    aliased = client.aliases().get(target.name)
    if aliased:
        raise UserError(f"'{target.name}' is an alias of {aliased}; name the collection: --collection {aliased}.")
    found = read_collection(client, target.name)
    if found is None:
        return None
    if target.spec:
        refuse(Plan(refusals=plan_collection(target.spec, found).refusals))
    there = shapes(found.vectors, found.params.get("sparse_vectors") or {})
    if there != target.shapes:
        raise UserError(
            f"{target.name} is there with {_described(there)}, and the source needs {_described(target.shapes)}; "
            "name another collection.",
            exit_code=1,
        )
    return found


def finish(client: Qdrant, target: Wanted, graph: Mapping[str, Any] | None) -> None:
    """Restore the graph's settings, so that it is built once over all points."""
    if graph:
        _set_graph(client, target.name, graph)
        # A server that checks whether to index only after a write does so now.
        client.call("POST", f"{collection_path(target.name)}/points/delete?wait=true", {"points": [str(uuid.uuid4())]})


def wait_green(client: Qdrant, name: str, on_wait: Callable[[str], None]) -> bool:
    """Wait until the collection is indexed; returns False after the deadline. A red one is an error."""
    deadline, calm, said = time.monotonic() + INDEX_DEADLINE_S, 0, ""
    while calm < 2:
        info = client.collection(name) or {}
        if info.get("status") == "red":
            status = info.get("optimizer_status")
            why = status.get("error") if isinstance(status, dict) else status
            raise UserError(f"{name} is red and will not be indexed: {why}; read the server's log.", exit_code=1)
        ready = info.get("status") == "green" and info.get("optimizer_status") == "ok"
        calm = calm + 1 if ready else 0
        if time.monotonic() > deadline:
            return False
        words = f"{info.get('indexed_vectors_count') or 0} of {info.get('points_count') or 0} vectors indexed"
        if not ready and words != said:
            on_wait(words)
            said = words
        time.sleep(0.2)
    return True


def count(client: Qdrant, name: str) -> int:
    """Count the points of a collection."""
    return int(client.call("POST", f"{collection_path(name)}/points/count", {"exact": True})["count"])


def fetch(client: Qdrant, name: str, ids: Sequence[int | str]) -> dict[int | str, Point]:
    """Fetch points by id with vectors and payload; missing ones are omitted."""
    body = {"ids": list(ids), "with_payload": True, "with_vector": True}
    found = client.call("POST", f"{collection_path(name)}/points", body)
    return {one["id"]: Point(one["id"], from_json(one["vector"]), one.get("payload") or {}) for one in found}


def cut_over(client: Qdrant, alias: str, collection: str) -> str | None:
    """Point an alias to a collection in one call; returns its earlier collection."""
    there = client.collections()
    if alias in there:
        raise UserError(f"'{alias}' is a collection, so no alias can be; choose another name for the alias.")
    if collection not in there:
        raise UserError(f"There is no collection '{collection}' at {client.url}; there are {', '.join(there)}.")
    was = client.aliases().get(alias)
    apply(client, Plan((SwitchAliases({alias: collection}),)))
    return was


def _set_graph(client: Qdrant, name: str, graph: Mapping[str, Any]) -> None:
    client.call("PATCH", collection_path(name), {"hnsw_config": dict(graph)})
    kept = (client.collection(name) or {}).get("config", {}).get("hnsw_config", {})
    if any(kept.get(key) != value for key, value in graph.items()):
        raise QdrantError(f"{client.url} did not take hnsw_config {dict(graph)} for {name}; it has {kept}.")


def _names(vectors: Mapping[str, VectorShape]) -> str:
    return ", ".join(repr(name) if name else "unnamed" for name in sorted(vectors)) or "none"


def _described(vectors: Mapping[str, VectorShape]) -> str:
    return ", ".join(f"{name!r} {one}" if name else str(one) for name, one in sorted(vectors.items()))
