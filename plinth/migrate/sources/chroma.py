"""Chroma over its REST API: ids are listed once, and rows are fetched by id."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from plinth.errors import UserError
from plinth.migrate.model import UNNAMED, Described, Position, Row, VectorShape
from plinth.migrate.sources.chroma_server import serve
from plinth.system.http_client import client_for, url_path

KEY_VARIABLE = "CHROMA_API_KEY"
PARTS = ("embeddings", "documents", "metadatas", "uris")
DISTANCES = {"l2": "Euclid", "cosine": "Cosine", "ip": "Dot"}
# Chroma's cloud returns 300 at most, and silently fewer; the offset continues after the rows received.
LISTED, ASKED = 300, 250
TIMEOUT_S = 60.0
PASSING = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class ChromaOptions:
    """A collection of a server (its address) or of a directory. A token is in CHROMA_API_KEY."""

    location: str
    collection: str
    tenant: str = "default_tenant"
    database: str = "default_database"
    document_field: str = "document"
    id_field: str = "id"
    uri_field: str = "uri"


class _Passing(Exception):
    """A failure that is worth a retry."""


@contextmanager
def open_chroma(options: ChromaOptions) -> Iterator[Chroma]:
    """Open a collection as a source; raises :class:`UserError` if it does not exist: nothing is created."""
    with ExitStack() as stack:
        url = options.location
        if not url.startswith(("http://", "https://")):
            url = stack.enter_context(serve(Path(options.location).absolute()))
        token = os.environ.get(KEY_VARIABLE)
        headers = {"x-chroma-token": token} if token else {}
        http = stack.enter_context(client_for(url.rstrip("/"), headers=headers, timeout=TIMEOUT_S))
        yield Chroma(http, options)


class Chroma:
    """A collection as a source."""

    def __init__(self, http: httpx.Client, options: ChromaOptions) -> None:
        self._http, self._options = http, options
        self._root = f"/api/v2{url_path('tenants', options.tenant, 'databases', options.database, 'collections')}"
        self._found = self._collection()
        self._path = f"{self._root}{url_path(self._found['id'])}"
        self._ids: list[str] = []

    def describe(self) -> Described:
        """Describe its vectors, and the distance of its own configuration."""
        options, found = self._options, self._found
        space = _space(found)
        metadata = {
            f"{options.id_field}": "Chroma's id",
            f"{options.document_field}": "the document, where there is one",
            f"{options.uri_field}": "the URI, where there is one",
        }
        return Described(
            identity={"kind": "chroma", "collection": options.collection, "id": found["id"]},
            namespace=f"chroma/{options.tenant}/{options.database}/{options.collection}",
            vectors={UNNAMED: VectorShape(found.get("dimension"), DISTANCES[space])},
            fields={**metadata, "metadata": "each key as it is"},
            left_out=_left_out(found),
        )

    def count(self) -> int:
        """Count the rows; refuses a collection that changes while its ids are listed."""
        ids = self._listed()
        told = int(self._call("GET", f"{self._path}/count"))
        if told != len(ids):
            raise UserError(
                f"Chroma counts {told} rows in {self._options.collection} and lists {len(ids)}; stop what writes there "
                "and run again.",
                exit_code=1,
            )
        return told

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Yield rows in the order of their ids."""
        ids = self._listed()
        start = 0 if after is None else bisect_right(ids, after)
        for at in range(start, len(ids), ASKED):
            yield self._rows(ids[at : at + ASKED])

    def _rows(self, ids: Sequence[str]) -> list[Row]:
        body = {"ids": list(ids), "include": [*PARTS], "limit": len(ids)}
        found = self._call("POST", f"{self._path}/get", body)
        parts = (found.get(name) or [None] * len(found["ids"]) for name in PARTS)
        by_id = dict(zip(found["ids"], zip(*parts, strict=True), strict=True))
        return [self._row(identifier, by_id.get(identifier)) for identifier in ids]

    def _row(self, identifier: str, record: tuple[Any, Any, Any, Any] | None) -> Row:
        if record is None:
            return Row(identifier, identifier, {}, {}, "Chroma lists this id and does not give its row")
        embedding, document, metadata, uri = record
        fields = {self._options.document_field: document, self._options.uri_field: uri}
        own = {self._options.id_field: identifier} | {
            name: value for name, value in fields.items() if value is not None
        }
        clash = next((name for name in own if name in (metadata or {}) and metadata[name] != own[name]), None)
        broken = (
            f"its metadata has another '{clash}'; see --id-field, --document-field and --uri-field" if clash else ""
        )
        if embedding is None:
            return Row(identifier, identifier, {}, {}, "it has no embedding")
        vector = np.asarray(embedding, dtype=np.float32)
        return Row(identifier, identifier, {UNNAMED: vector}, {**(metadata or {}), **own}, broken)

    def _listed(self) -> list[str]:
        if not self._ids:
            ids: list[str] = []
            while True:
                body = {"include": [], "limit": LISTED, "offset": len(ids)}
                more = self._call("POST", f"{self._path}/get", body)["ids"]
                if not more:
                    break
                ids += more
            self._ids = sorted(set(ids))
        return self._ids

    def _collection(self) -> dict[str, Any]:
        listed = {one["name"]: one for one in self._call("GET", f"{self._root}?limit=1000")}
        if self._options.collection not in listed:
            there = ", ".join(sorted(listed)) or "none"
            raise UserError(f"Chroma has no collection '{self._options.collection}'; there are {there}.")
        found: dict[str, Any] = listed[self._options.collection]
        return found

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return self._tried(method, path, body)
        except _Passing as failed:
            raise UserError(f"{failed}. When that is mended, run the same command again.", exit_code=1) from None

    @retry(
        retry=retry_if_exception_type(_Passing),
        stop=stop_after_attempt(5),
        wait=wait_exponential_jitter(multiplier=0.3, max=10),
        reraise=True,
    )
    def _tried(self, method: str, path: str, body: Any) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _Passing(f"Chroma at {self._http.base_url} cannot be reached ({error})") from error
        if answer.status_code in PASSING:
            raise _Passing(f"Chroma answered {answer.status_code} to {method} {path}: {answer.text[:200]}")
        if answer.status_code in (401, 403):
            raise UserError(f"Chroma at {self._http.base_url} wants a token; put it into {KEY_VARIABLE}.", exit_code=1)
        if not answer.is_success:
            raise UserError(
                f"Chroma answered {answer.status_code} to {method} {path}: {answer.text[:200]}; its API must be v2 "
                "(Chroma 0.6 or later).",
                exit_code=1,
            )
        return answer.json()


def _left_out(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what a collection of Chroma has besides its rows, where it differs from Chroma's defaults."""
    missing = {}
    described = {key: value for key, value in (found.get("metadata") or {}).items() if not key.startswith("hnsw:")}
    if described:
        missing["metadata of the collection"] = f"{', '.join(sorted(described))}; a collection file has `metadata`"
    configured = {key: value for key, value in (found.get("configuration_json") or {}).items() if value}
    tuned = [
        f"{index}.{key}" for index in ("hnsw", "spann") for key in sorted(configured.get(index) or {}) if key != "space"
    ]
    legacy = sorted(key for key in found.get("metadata") or {} if key.startswith("hnsw:") and key != "hnsw:space")
    if tuned or legacy:
        missing["settings of the index"] = f"{', '.join([*tuned, *legacy])}; Qdrant's own are in the collection file"
    if "embedding_function" in configured:
        missing["embedding function"] = "applications embed with the same model themselves"
    return missing


def _space(found: Mapping[str, Any]) -> str:
    configured = found.get("configuration_json") or {}
    for index in ("hnsw", "spann"):
        space = (configured.get(index) or {}).get("space")
        if space:
            return str(space)
    return str((found.get("metadata") or {}).get("hnsw:space", "l2"))
