"""Tiers: one name that sets limits, volumes and tuning together (S1-11)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """The size of an environment."""

    small = "small"
    medium = "medium"
    large = "large"


@dataclass(frozen=True)
class Size:
    """A tier's resources for Qdrant, and those of the other services in addition.

    CPUs are cores, memory is MiB, disk is GiB.
    """

    cpus: float
    memory_mib: int
    disk_gib: int
    postgres_memory_mib: int
    postgres_connections: int
    redis_memory_mib: int
    prometheus_disk_gib: int
    neo4j_memory_mib: int
    gateway_memory_mib: int


SIZES: dict[Tier, Size] = {
    Tier.small: Size(1, 2048, 10, 512, 50, 256, 5, 1024, 768),
    Tier.medium: Size(4, 8192, 100, 2048, 100, 1024, 20, 4096, 1024),
    Tier.large: Size(8, 16384, 500, 4096, 200, 2048, 50, 8192, 2048),
}
