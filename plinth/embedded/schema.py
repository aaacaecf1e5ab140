"""A collection's configuration in the words of the REST API, as the wheel's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import ApiError, malformed, refused
from plinth.embedded.names import check_vector

DISTANCES = {"Cosine": "Cosine", "Euclid": "Euclid", "Dot": "Dot", "Manhattan": "Manhattan"}
INDEXES: dict[str, tuple[Any, frozenset[str]]] = {
    "keyword": (edge.KeywordIndexParams, frozenset({"is_tenant", "on_disk", "enable_hnsw"})),
    "integer": (edge.IntegerIndexParams, frozenset({"lookup", "range", "is_principal", "on_disk", "enable_hnsw"})),
    "float": (edge.FloatIndexParams, frozenset({"is_principal", "on_disk", "enable_hnsw"})),
    "geo": (edge.GeoIndexParams, frozenset({"on_disk", "enable_hnsw"})),
    "bool": (edge.BoolIndexParams, frozenset({"on_disk", "enable_hnsw"})),
    "datetime": (edge.DatetimeIndexParams, frozenset({"is_principal", "on_disk", "enable_hnsw"})),
    "uuid": (edge.UuidIndexParams, frozenset({"is_tenant", "on_disk", "enable_hnsw"})),
    "text": (
        edge.TextIndexParams,
        frozenset(
            {
                "tokenizer",
                "min_token_len",
                "max_token_len",
                "lowercase",
                "ascii_folding",
                "phrase_matching",
                "on_disk",
                "enable_hnsw",
            }
        ),
    ),
}


def shard_config(config: Mapping[str, Any]) -> edge.EdgeConfig:
    """The wheel's config of a collection."""
    params = config["params"]
    optimizers = config["optimizer_config"]
    return edge.EdgeConfig(
        vectors=_vectors(params["vectors"], config),
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if inner.get("modifier") == "idf" else None)
            for name, inner in (params.get("sparse_vectors") or {}).items()
        }
        or None,
        on_disk_payload=params["on_disk_payload"],
        hnsw_config=hnsw(config["hnsw_config"]),
        quantization_config=quantization(config.get("quantization_config")),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers["deleted_threshold"],
            vacuum_min_vector_number=optimizers["vacuum_min_vector_number"],
            default_segment_number=optimizers["default_segment_number"],
            max_segment_size=optimizers["max_segment_size"],
            indexing_threshold=optimizers["indexing_threshold"],
        ),
    )


def hnsw(config: Mapping[str, Any]) -> edge.HnswIndexConfig:
    """The graph's settings."""
    return edge.HnswIndexConfig(
        m=config["m"],
        ef_construct=config["ef_construct"],
        full_scan_threshold=config["full_scan_threshold"],
        max_indexing_threads=config.get("max_indexing_threads") or 0,
        on_disk=config.get("on_disk"),
        payload_m=config.get("payload_m"),
    )


def quantization(config: Mapping[str, Any] | None) -> Any:
    """One of the wheel's quantizations, or None."""
    if not config:
        return None
    (kind, values), *_ = config.items()
    ram = values.get("always_ram")
    if kind == "scalar":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, values.get("quantile"), ram)
    if kind == "product":
        return edge.ProductQuantizationConfig(getattr(edge.CompressionRatio, values["compression"].upper()), ram)
    if kind == "binary":
        return edge.BinaryQuantizationConfig(always_ram=ram)
    raise refused(f"quantization '{kind}'")


def index(schema: str | Mapping[str, Any]) -> Any:
    """A payload index's parameters."""
    body = {"type": schema} if isinstance(schema, str) else dict(schema)
    kind = body.pop("type", None)
    if kind not in INDEXES:
        raise malformed(f"unknown payload index type {kind!r}, expected one of {', '.join(INDEXES)}")
    make, known = INDEXES[kind]
    given = {key: value for key, value in body.items() if value is not None}
    if set(given) - known:
        raise refused(f"'{sorted(set(given) - known)[0]}' on an index of type {kind}")
    if "tokenizer" in given:
        given["tokenizer"] = getattr(edge.TokenizerType, str(given["tokenizer"]).capitalize())
    return make(**given)


def check_vectors(vectors: Any, sparse: Any) -> None:
    """Refuse vectors that no collection can have."""
    if not isinstance(vectors, dict) or not isinstance(sparse, dict):
        raise malformed("vectors and sparse_vectors are objects")
    for name in (*(() if "size" in vectors else vectors), *sparse):
        check_vector(name)
    for params in [vectors] if "size" in vectors else vectors.values():
        if not isinstance(params, dict):
            raise malformed("a vector's parameters are an object")
        size, distance = params.get("size"), params.get("distance")
        if distance not in DISTANCES:
            raise malformed(f"unknown distance {distance!r}, expected one of {', '.join(DISTANCES)}")
        if not isinstance(size, int) or not 1 <= size <= 65536:
            raise ApiError(
                422, f"Validation error in JSON body: [vectors.size: value {size} invalid, must be from 1 to 65536]"
            )


def _vectors(vectors: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    if "size" in vectors:
        return _vector(vectors, config)
    return {name: _vector(params, config) for name, params in vectors.items()}


def _vector(params: Mapping[str, Any], config: Mapping[str, Any]) -> edge.EdgeVectorParams:
    own_hnsw, own_quantization = params.get("hnsw_config"), params.get("quantization_config")
    return edge.EdgeVectorParams(
        size=params["size"],
        distance=getattr(edge.Distance, params["distance"]),
        on_disk=params.get("on_disk"),
        datatype=getattr(edge.VectorStorageDatatype, params["datatype"].capitalize())
        if params.get("datatype")
        else None,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        if params.get("multivector_config")
        else None,
        hnsw_config=hnsw({**config["hnsw_config"], **own_hnsw}) if own_hnsw else None,
        quantization_config=quantization(own_quantization),
    )
