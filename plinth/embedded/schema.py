"""A collection's configuration in the words of the REST API, as the wheel's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import malformed, refused

_BINARY = {
    None: None,
    "one_bit": edge.BinaryQuantizationEncoding.OneBit,
    "two_bits": edge.BinaryQuantizationEncoding.TwoBits,
    "one_and_half_bits": edge.BinaryQuantizationEncoding.OneAndHalfBits,
}
_BINARY_QUERY = {
    None: None,
    "default": edge.BinaryQuantizationQueryEncoding.Default,
    "binary": edge.BinaryQuantizationQueryEncoding.Binary,
    "scalar4bits": edge.BinaryQuantizationQueryEncoding.Scalar4Bits,
    "scalar8bits": edge.BinaryQuantizationQueryEncoding.Scalar8Bits,
}
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


def single(vectors: Mapping[str, Any]) -> bool:
    """Whether a collection has one vector without a name; `size` may be a vector's name too."""
    return isinstance(vectors.get("size"), int)


def shard_config(config: Mapping[str, Any]) -> edge.EdgeConfig:
    """The wheel's config of a collection."""
    params = config["params"]
    optimizers = config["optimizer_config"]
    return edge.EdgeConfig(
        vectors=_vectors(params["vectors"], config),
        sparse_vectors={name: _sparse(inner) for name, inner in (params.get("sparse_vectors") or {}).items()} or None,
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
        inline_storage=config.get("inline_storage"),
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
        return edge.BinaryQuantizationConfig(
            always_ram=ram,
            encoding=_BINARY[values.get("encoding")],
            query_encoding=_BINARY_QUERY[values.get("query_encoding")],
        )
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


def _vectors(vectors: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    if single(vectors):
        return _vector(vectors, config)
    return {name: _vector(params, config) for name, params in vectors.items()}


def _vector(params: Mapping[str, Any], config: Mapping[str, Any]) -> edge.EdgeVectorParams:
    own_hnsw, own_quantization = params.get("hnsw_config"), params.get("quantization_config")
    return edge.EdgeVectorParams(
        size=params["size"],
        distance=getattr(edge.Distance, params["distance"]),
        on_disk=params.get("on_disk"),
        datatype=_datatype(params),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        if params.get("multivector_config")
        else None,
        hnsw_config=hnsw({**config["hnsw_config"], **own_hnsw}) if own_hnsw else None,
        quantization_config=quantization(own_quantization),
    )


def _sparse(params: Mapping[str, Any]) -> edge.EdgeSparseVectorParams:
    index = params.get("index") or {}
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=edge.Modifier.Idf if params.get("modifier") == "idf" else None,
        datatype=_datatype(index),
    )


def _datatype(params: Mapping[str, Any]) -> Any:
    name = params.get("datatype")
    return getattr(edge.VectorStorageDatatype, name.capitalize()) if name else None
