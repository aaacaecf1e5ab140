"""The settings to try: graphs, each of which must be built, and ways to search them without another build; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from plinth.qdrant.spec import CollectionSpec

LINKS = (16, 8, 32)
EF_CONSTRUCT = (100, 200)
EF = (32, 64, 128, 256)
OVERSAMPLING = (1.0, 1.5, 2.0, 3.0)
QUANTIZATIONS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "int8": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}},
    "binary": {"binary": {"always_ram": True}},
}


@dataclass(frozen=True)
class Build:
    """A graph and the vectors it is searched with; ``quantization`` is its name in :mod:`plinth.sizing`."""

    m: int
    payload_m: int
    ef_construct: int
    quantization: str

    def __str__(self) -> str:
        return f"m {self.m}, payload_m {self.payload_m}, ef_construct {self.ef_construct}, {self.quantization}"


@dataclass(frozen=True, order=True)
class Search:
    """How a built graph is searched. With ``oversampling`` 0 the order of the quantized vectors is final."""

    oversampling: float
    ef: int

    @property
    def rescore(self) -> bool:
        """Whether the candidates are ranked again by the full vectors."""
        return self.oversampling > 0

    def params(self, quantized: bool) -> dict[str, Any]:
        """Return Qdrant's `params` of a query."""
        if not quantized:
            return {"hnsw_ef": self.ef}
        quantization = {"rescore": self.rescore, "oversampling": max(1.0, self.oversampling)}
        return {"hnsw_ef": self.ef, "quantization": quantization}

    def __str__(self) -> str:
        how = f"rescored, oversampling {self.oversampling:g}" if self.rescore else "not rescored"
        return f"ef {self.ef}, {how}"


def builds(spec: CollectionSpec, quantizations: Sequence[str]) -> list[Build]:
    """Return the graphs to try: the collection's present one first, then by their distance from it.

    A collection that is always searched within a scope gets links within the scope only, as in its file.
    """
    own = shipped(spec, quantizations[0])
    if own.m == 0:
        graphs = [(0, links) for links in LINKS]
    else:
        graphs = [(m, payload_m) for m, payload_m in product(LINKS, (own.payload_m, 0, 16)) if m >= payload_m]
    found = [
        Build(m, payload_m, ef_construct, quantization)
        for quantization, ef_construct, (m, payload_m) in product(quantizations, EF_CONSTRUCT, graphs)
    ]
    return list(dict.fromkeys([own, *found]))


def shipped(spec: CollectionSpec, quantization: str) -> Build:
    """Return the graph of the collection's file, with Qdrant's defaults where the file has no value."""
    graph = spec.hnsw_config
    return Build(16 if graph.m is None else graph.m, graph.payload_m or 0, graph.ef_construct or 100, quantization)


def searches(quantized: bool) -> Iterator[list[Search]]:
    """Yield the ways to search, in rows.

    Within a row each costs more than the one before, and finds at least as much.
    """
    for oversampling in (0.0, *OVERSAMPLING) if quantized else (1.0,):
        yield [Search(oversampling, ef) for ef in EF]


def spec_of(spec: CollectionSpec, build: Build, own_quantization: str) -> CollectionSpec:
    """Return the collection with another graph and, where it differs from its own, another quantization."""
    changes: dict[str, Any] = {
        "hnsw_config": spec.hnsw_config.model_dump(exclude_none=True)
        | {"m": build.m, "payload_m": build.payload_m, "ef_construct": build.ef_construct}
    }
    if build.quantization != own_quantization:
        changes["quantization_config"] = QUANTIZATIONS[build.quantization]
    return CollectionSpec.model_validate(spec.model_dump(exclude_none=True) | changes)
