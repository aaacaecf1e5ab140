"""Build a graph on a scratch engine and send it every query in every way, one after another."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from plinth.load.bulk_load import fill
from plinth.load.collection_setup import FULL_SCAN_KB
from plinth.load.dataset import TOP
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.ephemeral import Scratch
from plinth.qdrant.spec import CollectionSpec
from plinth.tune.pareto import Outcome
from plinth.tune.recall_bands import BANDS, MIN_QUERIES, WHOLE, band, by_band
from plinth.tune.sample import Sample, scope_field
from plinth.tune.search_space import Build, Search, searches, spec_of
from plinth.tune.sweep import Queries

NAME = "plinth_tune"
FIELD = "tenant"
# A row of increasing ef ends where recall cannot increase further.
ENOUGH = 0.9995
WARM_UP = 20


@dataclass(frozen=True)
class Question:
    """A query's body without its `params`, and the band that its answer counts for."""

    body: dict[str, Any]
    band: str
    held_out: bool


class Bench:
    """A sample on a scratch engine. The exact answers are requested once: every build has the same points."""

    def __init__(self, engine: Scratch, spec: CollectionSpec, quantization: str, sample: Sample) -> None:
        self._engine = engine
        self._spec = _small(spec, sample)
        self._quantization = quantization
        self._sample = sample
        self._questions = list(questions(spec, sample))
        self._truth: dict[int, set[int]] = {}
        self._connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)

    def trial(self, build: Build, queries: Queries, only: Sequence[Search] | None = None) -> dict[Search, Outcome]:
        """Build the graph from nothing, then search in every given way; each engine time is the server's own, in ms."""
        spec, sample = spec_of(self._spec, build, self._quantization), self._sample
        with Qdrant(self._engine.url, self._engine.api_key, timeout_s=120) as client:
            fill(client, spec, sample.vectors, lambda row: {FIELD: sample.tenants[row]} if sample.tenants else {})
            # The next request opens it again: a server closes a connection that was idle while a graph was built.
            self._connection.close()
            asked = [n for n, q in enumerate(self._questions) if q.held_out == (queries == "held out")]
            self._learn_truth(asked)
            quantized = build.quantization != "none"
            rows = [list(only)] if only else searches(quantized)
            found: dict[Search, Outcome] = {}
            for row in rows:
                for search in row:
                    found[search] = outcome = self._search(asked, search.params(quantized))
                    if only is None and min(outcome.certain().values()) >= ENOUGH:
                        break
            client.call("DELETE", collection_path(NAME))
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _learn_truth(self, asked: Sequence[int]) -> None:
        for number in asked:
            if number not in self._truth:
                self._truth[number] = self._ask(self._questions[number].body | {"params": {"exact": True}})[0]

    def _search(self, asked: Sequence[int], params: dict[str, Any]) -> Outcome:
        answered = [number for number in asked if self._truth[number]]
        for number in answered[:WARM_UP]:
            self._ask(self._questions[number].body | {"params": params})
        scores, times = [], []
        for number in answered:
            found, engine_ms = self._ask(self._questions[number].body | {"params": params})
            scores.append(len(found & self._truth[number]) / len(self._truth[number]))
            times.append(engine_ms)
        return Outcome(by_band((self._questions[number].band for number in answered), scores), tuple(times))

    def _ask(self, body: dict[str, Any]) -> tuple[set[int], float]:
        headers = {"api-key": self._engine.api_key, "content-type": "application/json", "accept-encoding": "identity"}
        path = f"{collection_path(NAME)}/points/query"
        self._connection.request("POST", path, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise QdrantError(f"Qdrant answered {answer.status} to a search: {text[:200]!r}", answer.status)
        found = orjson.loads(text)
        return {point["id"] for point in found["result"]["points"]}, found["time"] * 1000


def questions(spec: CollectionSpec, sample: Sample) -> Iterator[Question]:
    """Yield every query within its tenant; for a collection that is also searched as a whole, without a filter too.

    Half of each band is held out. A band with too few queries for a result is merged with that of the next larger
    tenants.
    """
    names = _bands(sample)
    seen: dict[str, int] = {}
    for row, query in enumerate(sample.queries):
        bare = {"query": query, "limit": TOP}
        ways = []
        if not spec.scopes or not sample.tenants:
            ways.append((WHOLE, bare))
        if sample.tenants:
            within = {"must": [{"key": FIELD, "match": {"value": sample.query_tenants[row]}}]}
            ways.append((names[row], bare | {"filter": within}))
        for name, body in ways:
            seen[name] = seen.get(name, 0) + 1
            yield Question(body, name, held_out=seen[name] % 2 == 0)


def _bands(sample: Sample) -> list[str]:
    """Return the band of each query, with small bands merged."""
    shares = sample.shares
    own = [band(shares[tenant]) for tenant in sample.query_tenants]
    by_size = [name for _, name in BANDS if name in own]
    renamed: dict[str, str] = {}
    for position, name in enumerate(by_size):
        few = own.count(name) < 2 * MIN_QUERIES
        renamed[name] = renamed[by_size[position - 1]] if few and position else name
    return [renamed[name] for name in own]


def _small(spec: CollectionSpec, sample: Sample) -> CollectionSpec:
    """Return the collection over the sample's one payload field, with scaled thresholds so that all is indexed.

    A sample is below Qdrant's thresholds: it would be scanned, which is exact, and every graph would look good.
    """
    field = scope_field(spec)
    tenancy = bool(spec.scopes and sample.tenants)
    index = spec.payload_indexes[field].model_dump(exclude_none=True) if field and sample.tenants else None
    return CollectionSpec.model_validate(
        {
            "name": NAME,
            "vectors": spec.vectors.model_dump(exclude_none=True),
            "hnsw_config": spec.hnsw_config.model_dump(exclude_none=True) | {"full_scan_threshold": FULL_SCAN_KB},
            "quantization_config": spec.quantization_config and spec.quantization_config.model_dump(exclude_none=True),
            "optimizers_config": {
                "default_segment_number": 1,
                "indexing_threshold": max(1, sample.vectors.nbytes // 1024 // 2),
            },
            "payload_indexes": {FIELD: index | ({"is_tenant": True} if tenancy else {})} if index else {},
            "tenant": FIELD if tenancy else None,
        }
    )
