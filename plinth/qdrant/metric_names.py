"""Names of Qdrant's metrics that rules, dashboards and the exporter share."""

from __future__ import annotations

from dataclasses import dataclass

# Seconds. Qdrant's histograms, REST and gRPC, count answers below these and no others (v1.18).
EDGES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 50)


@dataclass(frozen=True)
class Api:
    """The names of a search and of an error in the metrics of one of Qdrant's two APIs.

    Batches and groups are not searches: one request of them holds many. 408 and 4 are timeouts; a client's mistake
    (400, 404, 429) is not an error of the server.
    """

    name: str
    search: str
    errors: str


APIS = (
    Api(
        "rest",
        r'endpoint=~"/collections/\\{collection_name\\}/points/(query|search)",method="POST"',
        'status=~"5..|408"',
    ),
    Api("grpc", r'endpoint=~"/qdrant\\.Points/(Query|Search)"', 'status=~"2|4|9|13|14|15"'),
)
