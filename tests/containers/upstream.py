"""What the upstream images say of themselves, by the keys of config/images.yaml: from their published Dockerfiles.

A stand-in that leaves it out hides what an engine does because of it: looks a USER up, makes a volume for a VOLUME.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """The configuration of an image; every target gives an entrypoint, a user and mounts of its own."""

    entrypoint: tuple[str, ...]
    user: str = ""
    volumes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    environment: tuple[str, ...] = ()

    def changes(self) -> list[str]:
        """As lines of a Dockerfile."""
        return [
            f"ENTRYPOINT {json.dumps(self.entrypoint)}",
            *([f"USER {self.user}"] if self.user else []),
            *([f"VOLUME {json.dumps(self.volumes)}"] if self.volumes else []),
            *(f"EXPOSE {port}" for port in self.ports),
            *(f"ENV {variable}" for variable in self.environment),
        ]


UPSTREAM = {
    "qdrant": Image(("./entrypoint.sh",), "1000:1000", ports=(6333, 6334), environment=("RUN_MODE=production",)),
    "postgres": Image(
        ("docker-entrypoint.sh",),
        volumes=("/var/lib/postgresql/data",),
        ports=(5432,),
        environment=("PGDATA=/var/lib/postgresql/data", "PG_MAJOR=17"),
    ),
    "redis": Image(("docker-entrypoint.sh",), volumes=("/data",), ports=(6379,)),
    "neo4j": Image(("tini", "-g", "--", "docker-entrypoint.sh"), volumes=("/data", "/logs"), ports=(7474, 7473, 7687)),
    "prometheus": Image(("/bin/prometheus",), "nobody", ("/prometheus",), (9090,)),
    "alertmanager": Image(("/bin/alertmanager",), "nobody", ("/alertmanager",), (9093,)),
    "grafana": Image(("/run.sh",), "472", ports=(3000,)),
    "loki": Image(("/usr/bin/loki",), "10001", ports=(3100,)),
    "fluent-bit": Image(("/fluent-bit/bin/fluent-bit",), ports=(2020,)),
    "node-exporter": Image(("/bin/node_exporter",), "nobody", ports=(9100,)),
    "postgres-exporter": Image(("/bin/postgres_exporter",), "nobody", ports=(9187,)),
    "redis-exporter": Image(("/redis_exporter",), "59000:59000", ports=(9121,)),
}
