"""The plan that makes a server match its files: a pure function of the desired and the actual state.

The same plan serves preview, apply and `plinth collections diff`. Only what a spec sets is managed, with three
exceptions that are compared whole: quantization, payload indexes and the aliases of the declared collections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plinth.qdrant.equality import equal, same_index, schema, shown, within
from plinth.qdrant.load_mark import is_load_gates
from plinth.qdrant.server_state import Found, FoundCollection
from plinth.qdrant.spec import CollectionSpec

FIXED = "Qdrant never changes it in place"


@dataclass(frozen=True)
class Change:
    """One value that differs: its key in the spec, the server's value and the spec's."""

    key: str
    found: Any
    wanted: Any


@dataclass(frozen=True)
class CreateCollection:
    """`PUT /collections/{collection}`."""

    collection: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class UpdateCollection:
    """`PATCH /collections/{collection}`; the graph is rebuilt in the background where it must be."""

    collection: str
    patch: Mapping[str, Any]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class CreateIndex:
    """`PUT /collections/{collection}/index`."""

    collection: str
    field: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class DropIndex:
    """`DELETE /collections/{collection}/index/{field}`."""

    collection: str
    field: str


@dataclass(frozen=True)
class SwitchAliases:
    """`POST /collections/aliases`: all at once, so that no reader sees half of it."""

    point: Mapping[str, str]
    remove: tuple[str, ...] = ()


Step = CreateCollection | UpdateCollection | CreateIndex | DropIndex | SwitchAliases


@dataclass(frozen=True)
class Refusal:
    """A difference that cannot be applied in place, and the procedure that applies it."""

    collection: str
    change: Change
    sentence: str


@dataclass(frozen=True)
class Plan:
    """Ordered steps, refusals, and the collections that no file declares, without those of the load gate."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    unmanaged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the server is as desired."""
        return not self.steps and not self.refusals


def plan(wanted: Sequence[CollectionSpec], found: Found) -> Plan:
    """Return the plan of all collections and aliases."""
    taken = tuple(_taken(spec.name, found.aliases[spec.name]) for spec in wanted if spec.name in found.aliases)
    free = [spec for spec in wanted if spec.name not in found.aliases]
    parts = [Plan(refusals=taken), *(plan_collection(spec, found.collections.get(spec.name)) for spec in free)]
    parts.append(plan_aliases(free, found))
    declared = {spec.name for spec in wanted}
    others = {name: there for name, there in found.collections.items() if name not in declared}
    return Plan(
        steps=tuple(step for part in parts for step in part.steps),
        refusals=tuple(refusal for part in parts for refusal in part.refusals),
        unmanaged=tuple(sorted(name for name, there in others.items() if not is_load_gates(name, there.metadata))),
    )


def plan_collection(spec: CollectionSpec, found: FoundCollection | None) -> Plan:
    """Return the plan of one collection. A refusal leaves it untouched: no step comes with it."""
    if found is None:
        indexes = (CreateIndex(spec.name, field, schema(index)) for field, index in spec.payload_indexes.items())
        # Indexes come before the first point: links within a tenant are made when a segment is indexed.
        return Plan((CreateCollection(spec.name, spec.create_body()), *indexes))
    refusals = (*_immutable(spec, found), *_late_tenant_index(spec, found))
    if refusals:
        return Plan(refusals=refusals)
    patch, changes = _patch(spec, found)
    update = (UpdateCollection(spec.name, patch, changes),) if changes else ()
    # A rebuild links within the fields that are indexed by then.
    return Plan((*_index_steps(spec, found), *update))


def plan_aliases(wanted: Sequence[CollectionSpec], found: Found) -> Plan:
    """Return the plan of the aliases of the declared collections; others are left alone."""
    declared = {spec.name for spec in wanted}
    targets = {alias: spec.name for spec in wanted for alias in spec.aliases}
    refusals = tuple(
        Refusal(
            name,
            Change("aliases", "a collection", alias),
            f"{name}: a collection is named '{alias}', so no alias can be; move its data to another name first.",
        )
        for alias, name in targets.items()
        if alias in found.collections
    )
    point = {alias: name for alias, name in targets.items() if found.aliases.get(alias) != name}
    remove = tuple(sorted(a for a, name in found.aliases.items() if name in declared and a not in targets))
    if refusals or not (point or remove):
        return Plan(refusals=refusals)
    return Plan((SwitchAliases(point, remove),))


def immutable_changes(before: CollectionSpec, after: CollectionSpec) -> tuple[Refusal, ...]:
    """Return the changes between two specs that Qdrant never makes in place; known without the server."""
    was = FoundCollection(
        before.name,
        before.vectors.model_dump(exclude_none=True),
        {
            "sparse_vectors": _sparse(before),
            **{key: getattr(before, key) for key in ("shard_number", "sharding_method") if getattr(before, key)},
        },
        wal=before.wal_config.model_dump(exclude_none=True),
    )
    return tuple(_immutable(after, was))


def _immutable(spec: CollectionSpec, found: FoundCollection) -> Iterator[Refusal]:
    if "size" not in found.vectors:
        named = f"named {', '.join(sorted(found.vectors))}" if found.vectors else "none"
        yield _refusal(spec, Change("vectors", named, "unnamed"), FIXED)
        return
    have, params = found.vectors, found.params
    fixed = [
        ("vectors.size", have["size"], spec.vectors.size),
        ("vectors.distance", have["distance"], spec.vectors.distance),
        ("vectors.datatype", have.get("datatype") or "float32", spec.vectors.datatype),
        ("vectors.multivector_config", _kind(have.get("multivector_config")), _multivector(spec)),
        ("shard_number", params.get("shard_number"), spec.shard_number),
        ("sharding_method", params.get("sharding_method") or "auto", spec.sharding_method),
    ]
    fixed += [(f"wal_config.{k}", found.wal.get(k), v) for k, v in spec.wal_config.model_dump().items()]
    for key, is_, wanted in fixed:
        if is_ is not None and wanted is not None and is_ != wanted:
            yield _refusal(spec, Change(key, is_, wanted), FIXED)
    sparse = params.get("sparse_vectors") or {}
    for name, wanted in _sparse(spec).items():
        if name not in sparse or not within(sparse[name], wanted):
            change = Change(f"sparse_vectors.{name}", sparse.get(name, "absent"), wanted)
            yield _refusal(spec, change, "the points that are there have none of the kind")


def _multivector(spec: CollectionSpec) -> str:
    config = spec.vectors.multivector_config
    return config.comparator if config else "none"


def _kind(multivector: Mapping[str, Any] | None) -> str:
    return str(multivector["comparator"]) if multivector else "none"


def _sparse(spec: CollectionSpec) -> dict[str, Any]:
    return {name: vectors.model_dump(exclude_none=True) for name, vectors in spec.sparse_vectors.items()}


def _late_tenant_index(spec: CollectionSpec, found: FoundCollection) -> Iterator[Refusal]:
    if not found.points:
        return
    for field, index in spec.payload_indexes.items():
        if index.is_tenant and not same_index(index, found.indexes.get(field)):
            yield _refusal(
                spec,
                Change(f"payload_indexes.{field}", shown(found.indexes.get(field)), schema(index)),
                f"{found.points} points are there, and a segment linked without the index has no links within a tenant",
            )


def _taken(name: str, target: str) -> Refusal:
    return Refusal(
        name,
        Change("name", f"an alias of {target}", name),
        f"{name}: an alias of {target} has this name, so no collection can; give the file another name, "
        f"or point `aliases` of {target}'s file elsewhere first.",
    )


def _refusal(spec: CollectionSpec, change: Change, why: str) -> Refusal:
    nouns = f"'{spec.aliases[0]}'" if spec.aliases else "an alias"
    return Refusal(
        spec.name,
        change,
        f"{spec.name}: {change.key} is {change.found} and the file wants {change.wanted}; {why}. Put the new value "
        f"in a second file under a new name (such as {_successor(spec.name)}) without aliases and this one back, "
        f"run up, fill the new collection, then move {nouns} to its file.",
    )


def _successor(name: str) -> str:
    stem, mark, number = name.rpartition("_v")
    return f"{stem}_v{int(number) + 1}" if mark and number.isdigit() else f"{name}_v2"


def _patch(spec: CollectionSpec, found: FoundCollection) -> tuple[dict[str, Any], tuple[Change, ...]]:
    patch: dict[str, Any] = {}
    changes: list[Change] = []

    def differ(section: str, want: Mapping[str, Any], have: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        different = {key: value for key, value in want.items() if not equal(have.get(key), value)}
        changes.extend(Change(f"{prefix or section}.{key}", have.get(key), v) for key, v in different.items())
        return different

    params = {
        key: getattr(spec, key)
        for key in ("replication_factor", "write_consistency_factor", "on_disk_payload")
        if getattr(spec, key) is not None
    }
    sections = {
        "hnsw_config": (spec.hnsw_config.model_dump(exclude_none=True), found.hnsw),
        "optimizers_config": (spec.optimizers_config.model_dump(exclude_none=True), found.optimizers),
        "params": (params, found.params),
        "strict_mode_config": (
            spec.strict_mode_config.model_dump(exclude_none=True) if spec.strict_mode_config else {},
            found.strict_mode,
        ),
        "metadata": (spec.metadata or {}, found.metadata),
    }
    for section, (want, have) in sections.items():
        different = differ(section, want, have)
        if different:
            patch[section] = different
    on_disk = spec.vectors.on_disk
    if on_disk is not None and bool(found.vectors.get("on_disk")) != on_disk:
        patch["vectors"] = {"": {"on_disk": on_disk}}
        changes.append(Change("vectors.on_disk", found.vectors.get("on_disk"), on_disk))
    quantization = spec.quantization_config.model_dump(exclude_none=True) if spec.quantization_config else None
    if bool(found.quantization) != bool(quantization) or not within(found.quantization, quantization):
        patch["quantization_config"] = quantization or "Disabled"
        changes.append(Change("quantization_config", found.quantization, quantization))
    return patch, tuple(changes)


def _index_steps(spec: CollectionSpec, found: FoundCollection) -> Iterator[Step]:
    for field in sorted(set(found.indexes) - set(spec.payload_indexes)):
        yield DropIndex(spec.name, field)
    for field, index in spec.payload_indexes.items():
        have = found.indexes.get(field)
        if same_index(index, have):
            continue
        if have is not None:
            yield DropIndex(spec.name, field)
        yield CreateIndex(spec.name, field, schema(index))
