"""The stores of the comparison, each behind the same few calls, for the comparison's own environment.

Nothing of Plinth is imported here: that environment has the packages of the stores, and not Plinth's.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

TOP = 10
LINKS = 16
EF_CONSTRUCT = 100
INDEX_DEADLINE_S = 600
LOCKED_TRIES = 20
Matrix = Any


class Store(Protocol):
    """What the comparison requires of a store."""

    def create(self, dimensions: int) -> None:
        """Create the collection with HNSW, cosine, m 16 and ef_construct 100."""

    def add(self, first: int, vectors: Matrix, tenants: list[str]) -> None:
        """Insert a batch; ids count up from ``first``."""

    def finish(self) -> None:
        """Build the index, and wait until it is ready."""

    def prepare(self, ef: int) -> None:
        """Search with this ef from now on."""

    def question(self, query: Matrix, tenant: str | None) -> Callable[[], list[int]]:
        """Encode a search; a call of the result returns the ids of the points."""


class _Rest:
    """One keep-alive connection."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=600)
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        try:
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            # It was idle for longer than the server keeps a connection.
            self._connection.close()
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {text[:300]!r}")
        return json.loads(text) if text else None


class Qdrant:
    """A real server or the embedded engine, with the body of a collection file."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._rest = _Rest(job["url"], {"api-key": job["api_key"]})
        self._body = job["body"]
        self._params: dict[str, Any] = dict(job["params"])
        self._bytes = 0

    def create(self, dimensions: int) -> None:
        late = {"indexing_threshold": 10**9, "default_segment_number": 1}
        body = {**self._body, "optimizers_config": late}
        self._rest.call("PUT", "/collections/compare", json.dumps(body).encode())
        index = {"field_name": "tenant", "field_schema": {"type": "keyword", "is_tenant": True}}
        self._rest.call("PUT", "/collections/compare/index?wait=true", json.dumps(index).encode())

    def add(self, first: int, vectors: Matrix, tenants: list[str]) -> None:
        self._bytes += vectors.nbytes
        points = [
            {"id": first + row, "vector": vector, "payload": {"tenant": tenants[row]}}
            for row, vector in enumerate(vectors.tolist())
        ]
        self._rest.call("PUT", "/collections/compare/points?wait=true", json.dumps({"points": points}).encode())

    def finish(self) -> None:
        # Half of the data in KB, however small it is.
        threshold = max(1, self._bytes // 2048)
        change = {"optimizers_config": {"indexing_threshold": threshold, "default_segment_number": 1}}
        self._rest.call("PATCH", "/collections/compare", json.dumps(change).encode())
        # Some servers check whether to index only after a write.
        self._rest.call("POST", "/collections/compare/points/delete?wait=true", b'{"points": [4294967295]}')
        deadline, calm = time.monotonic() + INDEX_DEADLINE_S, 0
        while calm < 2:
            info = self._rest.call("GET", "/collections/compare")["result"]
            ready = info["status"] == "green" and info["indexed_vectors_count"] >= 0.99 * info["points_count"]
            calm = calm + 1 if ready else 0
            if time.monotonic() > deadline:
                raise RuntimeError("the collection was not indexed in time")
            time.sleep(0.3)

    def prepare(self, ef: int) -> None:
        self._params["hnsw_ef"] = ef

    def question(self, query: Matrix, tenant: str | None) -> Callable[[], list[int]]:
        body: dict[str, Any] = {"query": query.tolist(), "limit": TOP, "params": self._params}
        if tenant is not None:
            body["filter"] = {"must": [{"key": "tenant", "match": {"value": tenant}}]}
        encoded = json.dumps(body).encode()

        def ask() -> list[int]:
            found = self._rest.call("POST", "/collections/compare/points/query", encoded)
            return [point["id"] for point in found["result"]["points"]]

        return ask


class Chroma:
    """Chroma's server, through its REST API."""

    ROOT = "/api/v2/tenants/default_tenant/databases/default_database/collections"

    def __init__(self, job: dict[str, Any]) -> None:
        self._rest = _Rest(job["url"], {})
        self._path = ""

    def create(self, dimensions: int) -> None:
        graph = {"space": "cosine", "max_neighbors": LINKS, "ef_construction": EF_CONSTRUCT, "ef_search": 100}
        body = {"name": "compare", "configuration": {"hnsw": graph}}
        self._rest.call("POST", self.ROOT, json.dumps(body).encode())

    def add(self, first: int, vectors: Matrix, tenants: list[str]) -> None:
        body = {
            "ids": [str(first + row) for row in range(len(tenants))],
            "embeddings": vectors.tolist(),
            "metadatas": [{"tenant": tenant} for tenant in tenants],
        }
        self._rest.call("POST", f"{self._found()}/add", json.dumps(body).encode())

    def finish(self) -> None:
        # The first search makes it index what is only in its log.
        zero = [1.0] * self._dimensions()
        self.question(np.array(zero, dtype=np.float32), None)()

    def prepare(self, ef: int) -> None:
        change = {"new_configuration": {"hnsw": {"ef_search": ef}}}
        # Several clients set it at the same time, and its SQLite accepts one of them.
        for attempt in range(LOCKED_TRIES):
            try:
                self._rest.call("PUT", self._found(), json.dumps(change).encode())
            except RuntimeError as error:
                if "database is locked" not in str(error) or attempt == LOCKED_TRIES - 1:
                    raise
                time.sleep(0.2)
            else:
                return

    def question(self, query: Matrix, tenant: str | None) -> Callable[[], list[int]]:
        body: dict[str, Any] = {"query_embeddings": [query.tolist()], "n_results": TOP, "include": ["distances"]}
        if tenant is not None:
            body["where"] = {"tenant": tenant}
        encoded, path = json.dumps(body).encode(), f"{self._found()}/query"
        return lambda: [int(identifier) for identifier in self._rest.call("POST", path, encoded)["ids"][0]]

    def _dimensions(self) -> int:
        return int(self._rest.call("GET", f"{self.ROOT}/compare")["dimension"])

    def _found(self) -> str:
        if not self._path:
            self._path = f"{self.ROOT}/{self._rest.call('GET', f'{self.ROOT}/compare')['id']}"
        return self._path


class Pgvector:
    """Postgres with pgvector; the tenant has a B-tree, and a filtered scan continues until it has enough rows."""

    def __init__(self, job: dict[str, Any]) -> None:
        import psycopg

        self._connection = psycopg.connect(job["url"], autocommit=True, prepare_threshold=1)

    def create(self, dimensions: int) -> None:
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        self._connection.execute(f"CREATE TABLE compare (id int PRIMARY KEY, tenant text, v vector({dimensions}))")

    def add(self, first: int, vectors: Matrix, tenants: list[str]) -> None:
        with self._connection.cursor() as cursor, cursor.copy("COPY compare (id, tenant, v) FROM STDIN") as copy:
            for row, vector in enumerate(vectors):
                copy.write_row((first + row, tenants[row], _text(vector)))

    def finish(self) -> None:
        run = self._connection.execute
        run("SET maintenance_work_mem = '1GB'")
        run("CREATE INDEX ON compare (tenant)")
        run(
            f"CREATE INDEX ON compare USING hnsw (v vector_cosine_ops) WITH (m={LINKS}, ef_construction={EF_CONSTRUCT})"
        )
        run("VACUUM ANALYZE compare")

    def prepare(self, ef: int) -> None:
        self._connection.execute(f"SET hnsw.ef_search = {ef}")
        self._connection.execute("SET hnsw.iterative_scan = strict_order")

    def question(self, query: Matrix, tenant: str | None) -> Callable[[], list[int]]:
        text = _text(query)
        where, values = ("WHERE tenant = %s ", (tenant, text)) if tenant is not None else ("", (text,))
        statement = f"SELECT id FROM compare {where}ORDER BY v <=> %s::vector LIMIT {TOP}"  # noqa: S608 - constants
        return lambda: [row[0] for row in self._connection.execute(statement, values)]


class Milvus:
    """Milvus Lite's server, through gRPC."""

    def __init__(self, job: dict[str, Any]) -> None:
        from pymilvus import MilvusClient

        self._client = MilvusClient(uri=job["url"])
        self._ef = 100

    def create(self, dimensions: int) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("tenant", DataType.VARCHAR, max_length=16)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=dimensions)
        index = self._client.prepare_index_params()
        graph = {"M": LINKS, "efConstruction": EF_CONSTRUCT}
        index.add_index("v", index_type="HNSW", metric_type="COSINE", params=graph)
        self._client.create_collection("compare", schema=schema, index_params=index)

    def add(self, first: int, vectors: Matrix, tenants: list[str]) -> None:
        rows = [{"id": first + row, "tenant": tenants[row], "v": vector} for row, vector in enumerate(vectors)]
        self._client.insert("compare", rows)

    def finish(self) -> None:
        self._client.flush("compare")
        self._client.load_collection("compare")
        self.question(np.ones(self._dimensions(), dtype=np.float32), None)()

    def prepare(self, ef: int) -> None:
        self._client.load_collection("compare")
        self._ef = ef

    def question(self, query: Matrix, tenant: str | None) -> Callable[[], list[int]]:
        wanted = {"filter": f'tenant == "{tenant}"'} if tenant is not None else {}
        params = {"metric_type": "COSINE", "params": {"ef": self._ef}}

        def ask() -> list[int]:
            found = self._client.search("compare", data=[query], limit=TOP, search_params=params, **wanted)
            return [hit["id"] for hit in found[0]]

        return ask

    def _dimensions(self) -> int:
        fields = self._client.describe_collection("compare")["fields"]
        return int(next(field["params"]["dim"] for field in fields if field["name"] == "v"))


STORES: dict[str, Callable[[dict[str, Any]], Store]] = {
    "qdrant": Qdrant,
    "chroma": Chroma,
    "pgvector": Pgvector,
    "milvus": Milvus,
}


def _text(vector: Matrix) -> str:
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"
