"""Memory and disk that a collection needs, the tier that holds it, and until when. Pure arithmetic, in bytes.

Each part is a formula with its numbers, so that a person can check it; docs/sizing.md compares the sums with the memory
of real loads. Sources: Qdrant's capacity planning page and its storage formats (encoded_vectors_u8.rs: a quantized
vector is padded to 16 and carries a float; hnsw_index/mod.rs: the lowest layer holds 2 m links at most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from plinth.qdrant.config_sections import Quantization
from plinth.qdrant.spec import CollectionSpec
from plinth.settings.tiers import SIZES, Size, Tier

MIB = 1024**2
GIB = 1024**3

DATATYPES = {"float32": 4.0, "float16": 2.0, "uint8": 1.0}
# Bytes per dimension in addition to the originals; int8 has padding and is computed separately.
QUANTIZATIONS: dict[str, float] = {
    "none": 0.0,
    "int8": 1.0,
    **{f"x{ratio}": 4 / ratio for ratio in (4, 8, 16, 32, 64)},
    "binary": 1 / 8,
    "binary1.5": 1.5 / 8,
    "binary2": 2 / 8,
    **{f"turbo{bits}": float(bits) / 8 for bits in ("1", "1.5", "2", "4")},
}

UPPER_LAYERS = 1.2
ID_BYTES = 52
PAYLOAD_OVERHEAD = 1.5
INDEX_OVERHEAD = 2.0
# A server without a point, its code in memory: measured, docs/sizing.md.
PROCESS_BYTES = 128 * MIB
HEADROOM = 1.2
# An optimizer writes the new segment next to the old one, and deletes the old one when the new one is complete.
REBUILD = 2.0
# A log of three files of wal_capacity_mb each for every shard.
WAL_BYTES = 3 * 32 * MIB
SHARDS_PER_NODE = 2
FULL_SCAN_BYTES = 10000 * 1024


@dataclass(frozen=True)
class Workload:
    """The data to store, and the number of nodes.

    ``m`` and ``payload_m`` are the graph's links, ``linked_fields`` the indexed fields that payload_m links within,
    ``indexed_bytes`` the bytes of indexed fields per point. ``growth`` is points per month. ``cold_vectors`` leaves the
    originals on disk and reads them for rescoring only.
    """

    vectors: int
    dimensions: int
    tenants: int = 1
    replicas: int = 1
    nodes: int = 1
    quantization: str = "none"
    datatype: str = "float32"
    m: int = 16
    payload_m: int = 0
    linked_fields: int = 0
    payload_bytes: int = 0
    indexed_bytes: int = 0
    growth: int = 0
    cold_vectors: bool = False


@dataclass(frozen=True)
class Part:
    """One consumer of memory and disk: the bytes of one copy of all the data, and their formula.

    ``hot`` is touched by every search and stays in memory; the rest is cached while memory is free. ``ram`` may differ
    from ``disk``.
    """

    name: str
    formula: str
    ram: float
    disk: float
    hot: bool


@dataclass(frozen=True)
class Need:
    """The needs of the fullest node, in bytes. ``ram`` and ``disk`` are what its limits must allow."""

    hot: float
    total: float
    ram: float
    disk: float


@dataclass(frozen=True)
class Estimate:
    """The result. ``tier`` None: no tier holds it on this number of nodes, and ``nodes_needed`` of the largest do.

    ``months`` is how long the tier lasts; None without growth.
    """

    workload: Workload
    parts: tuple[Part, ...]
    shard_number: int
    need: Need
    tier: Tier | None
    months: int | None
    nodes_needed: int

    @property
    def scanned_tenant_points(self) -> int:
        """Points of a tenant below which Qdrant scans instead of using the graph, exact and quick."""
        return FULL_SCAN_BYTES // int(self.workload.dimensions * DATATYPES[self.workload.datatype])


def parts(load: Workload) -> tuple[Part, ...]:
    """Return every consumer of memory and disk, for one copy of the data."""
    n, d = load.vectors, load.dimensions
    width = DATATYPES[load.datatype]
    originals = n * d * width
    quantized, words = _quantized(load)
    links = load.m + load.payload_m * load.linked_fields
    # A link is a point's number in as few bits as the largest needs (links_compressed.bin).
    link = math.ceil(math.log2(n + 1)) / 8
    graph = n * links * 2 * link * UPPER_LAYERS
    payload = n * load.payload_bytes * PAYLOAD_OVERHEAD
    index = n * load.indexed_bytes * INDEX_OVERHEAD
    links_in_words = f"({load.m} + {load.payload_m}·{load.linked_fields})" if links != load.m else f"{load.m}"
    first = load.quantization == "none"
    return (
        Part("vectors", f"{n:,}·{d}·{width:g}", 0 if load.cold_vectors and not first else originals, originals, first),
        Part("quantized vectors", words, quantized, quantized, True),
        Part("graph", f"{n:,}·{links_in_words}·2·{link:g}·{UPPER_LAYERS}", graph, graph, True),
        Part("ids", f"{n:,}·{ID_BYTES}", n * ID_BYTES, n * ID_BYTES, True),
        Part("payload indexes", f"{n:,}·{load.indexed_bytes}·{INDEX_OVERHEAD:g}", index, index, True),
        Part("payload", f"{n:,}·{load.payload_bytes}·{PAYLOAD_OVERHEAD}", payload, payload, False),
    )


def need(load: Workload, shard_number: int) -> Need:
    """Return the needs of the node with the most shards."""
    shards = math.ceil(shard_number * load.replicas / load.nodes)
    share = shards / shard_number
    all_parts = parts(load)
    hot = sum(part.ram for part in all_parts if part.hot) * share
    total = sum(part.ram for part in all_parts) * share
    disk = sum(part.disk for part in all_parts) * share
    return Need(
        hot + PROCESS_BYTES,
        total + PROCESS_BYTES,
        total * HEADROOM + PROCESS_BYTES,
        disk * REBUILD + shards * WAL_BYTES,
    )


def estimate(load: Workload, sizes: Mapping[Tier, Size] = SIZES) -> Estimate:
    """Return the smallest tier that holds the workload, with the parts, shards and nodes behind it."""
    largest = list(sizes.values())[-1]
    in_a_year = nodes_needed(replace(load, vectors=load.vectors + 12 * load.growth), largest)
    shards = shard_number(load, in_a_year)
    wanted = need(load, shards)
    tier = next((tier for tier, size in sizes.items() if fits(wanted, size)), None)
    return Estimate(
        workload=load,
        parts=parts(load),
        shard_number=shards,
        need=wanted,
        tier=tier,
        months=months_until_full(load, shards, sizes[tier]) if tier else None,
        nodes_needed=nodes_needed(load, largest),
    )


def fits(wanted: Need, size: Size) -> bool:
    """Return whether a node of this size is enough."""
    return wanted.ram <= size.memory_mib * MIB and wanted.disk <= size.disk_gib * GIB


def shard_number(load: Workload, later_nodes: int) -> int:
    """Return the number of shards, which a collection cannot change later.

    Two for each node there is or will be in a year, one on a node that stays alone; a multiple of the nodes, so that
    each has as many.
    """
    most = max(load.nodes, later_nodes)
    wanted = 1 if most == 1 else SHARDS_PER_NODE * most
    return math.ceil(wanted / load.nodes) * load.nodes


def nodes_needed(load: Workload, size: Size) -> int:
    """Return the nodes of a size that hold the workload: at least the replicas; never two, which have no majority."""
    spare_ram = size.memory_mib * MIB - PROCESS_BYTES
    spare_disk = size.disk_gib * GIB - SHARDS_PER_NODE * WAL_BYTES
    ram = sum(part.ram for part in parts(load)) * load.replicas * HEADROOM
    disk = sum(part.disk for part in parts(load)) * load.replicas * REBUILD
    wanted = max(load.replicas, math.ceil(ram / spare_ram), math.ceil(disk / spare_disk), 1)
    return 3 if wanted == 2 else wanted


def months_until_full(load: Workload, shards: int, size: Size) -> int | None:
    """Return the whole months of growth that still fit; None without growth. 0: the next month's does not."""
    if load.growth <= 0:
        return None

    def holds(months: int) -> bool:
        return fits(need(replace(load, vectors=load.vectors + months * load.growth), shards), size)

    ceiling = 1
    while holds(ceiling):
        ceiling *= 2
    floor = 0
    while ceiling - floor > 1:
        middle = (floor + ceiling) // 2
        floor, ceiling = (middle, ceiling) if holds(middle) else (floor, middle)
    return floor


def quantization_name(config: Quantization | None) -> str:
    """Return the name in :data:`QUANTIZATIONS` of a collection file's section."""
    if config is None:
        return "none"
    if config.scalar:
        return "int8"
    if config.product:
        return config.product.compression
    if config.binary:
        return {"two_bits": "binary2", "one_and_half_bits": "binary1.5"}.get(config.binary.encoding or "", "binary")
    bits = config.turbo.bits if config.turbo else None
    return "turbo" + (bits or "bits4").removeprefix("bits").replace("_", ".")


def linked_fields(spec: CollectionSpec) -> int:
    """Return the number of indexed fields whose values get links of their own where payload_m is set."""
    indexes = spec.payload_indexes.values()
    return sum(index.type != "text" and index.enable_hnsw is not False for index in indexes)


def to_json(found: Estimate) -> dict[str, Any]:
    """Return the estimate as a JSON document; bytes are whole numbers."""
    return {
        "workload": found.workload.__dict__,
        "parts": [
            {
                "name": part.name,
                "formula": part.formula,
                "ram_bytes": round(part.ram),
                "disk_bytes": round(part.disk),
                "hot": part.hot,
            }
            for part in found.parts
        ],
        "per_node": {
            "hot_bytes": round(found.need.hot),
            "total_bytes": round(found.need.total),
            "memory_limit_bytes": math.ceil(found.need.ram),
            "disk_bytes": math.ceil(found.need.disk),
        },
        "shard_number": found.shard_number,
        "tier": found.tier,
        "months_until_full": found.months,
        "nodes_needed": found.nodes_needed,
        "scanned_tenant_points": found.scanned_tenant_points,
    }


def _quantized(load: Workload) -> tuple[float, str]:
    n, d = load.vectors, load.dimensions
    if load.quantization == "none":
        return 0.0, "none"
    if load.quantization == "int8":
        padded = math.ceil(d / 16) * 16
        return n * (padded + 4.0), f"{n:,}·({padded}+4)"
    width = QUANTIZATIONS[load.quantization]
    return n * math.ceil(d * width), f"{n:,}·{d}·{width:g}"
