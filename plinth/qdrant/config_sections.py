"""The sections of a collection's configuration, each with the keys of Qdrant's REST API."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from plinth.system.strict_model import StrictModel

Distance = Literal["Cosine", "Euclid", "Dot", "Manhattan"]


class Section(StrictModel):
    """The base of every section: an unknown key is an error, and sections are immutable."""


class Hnsw(Section):
    """The graph. ``payload_m`` links within each value of an indexed field; m 0 disables the global graph."""

    m: int | None = Field(None, ge=0)
    ef_construct: int | None = Field(None, ge=4)
    full_scan_threshold: int | None = Field(None, ge=10, description="KB of vectors under which a scan is used.")
    max_indexing_threads: int | None = Field(None, ge=0)
    on_disk: bool | None = None
    payload_m: int | None = Field(None, ge=0)
    inline_storage: bool | None = None


class Scalar(Section):
    """One byte per dimension."""

    type: Literal["int8"] = "int8"
    quantile: float | None = Field(None, ge=0.5, le=1)
    always_ram: bool | None = None


class Product(Section):
    """Codebooks: x4 to x64."""

    compression: Literal["x4", "x8", "x16", "x32", "x64"]
    always_ram: bool | None = None


class Binary(Section):
    """One to two bits per dimension."""

    encoding: Literal["one_bit", "two_bits", "one_and_half_bits"] | None = None
    query_encoding: Literal["default", "binary", "scalar4bits", "scalar8bits"] | None = None
    always_ram: bool | None = None


class Turbo(Section):
    """One to four bits per dimension, since Qdrant 1.18; not in the embedded server."""

    bits: Literal["bits1", "bits1_5", "bits2", "bits4"] | None = None
    always_ram: bool | None = None


class Quantization(Section):
    """Exactly one of the four quantizations."""

    scalar: Scalar | None = None
    product: Product | None = None
    binary: Binary | None = None
    turbo: Turbo | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("name exactly one of scalar, product, binary, turbo")
        return self


class Multivector(Section):
    """Several vectors per point, compared by the best match of each."""

    comparator: Literal["max_sim"] = "max_sim"


class Vectors(Section):
    """The dense vectors of a collection."""

    size: int = Field(ge=1, le=65536, description="Dimensions.")
    distance: Distance
    on_disk: bool | None = None
    datatype: Literal["float32", "float16", "uint8"] | None = None
    multivector_config: Multivector | None = None


class SparseIndex(Section):
    """The inverted index of sparse vectors."""

    full_scan_threshold: int | None = Field(None, ge=0, description="Vectors, not KB.")
    on_disk: bool | None = None
    datatype: Literal["float32", "float16", "uint8"] | None = None


class SparseVectors(Section):
    """Sparse vectors, by name."""

    modifier: Literal["idf"] | None = None
    index: SparseIndex | None = None


class Optimizers(Section):
    """When segments are merged, cleaned and indexed."""

    deleted_threshold: float | None = Field(None, ge=0, le=1)
    vacuum_min_vector_number: int | None = Field(None, ge=100)
    default_segment_number: int | None = Field(None, ge=0)
    max_segment_size: int | None = Field(None, ge=1)
    indexing_threshold: int | None = Field(None, ge=1, description="KB; 0 would never index and is refused.")
    flush_interval_sec: int | None = Field(None, ge=1)
    max_optimization_threads: int | None = Field(None, ge=1)


class Wal(Section):
    """The write-ahead log; fixed when the collection is created."""

    wal_capacity_mb: int | None = Field(None, ge=1)
    wal_segments_ahead: int | None = Field(None, ge=0)
    wal_retain_closed: int | None = Field(None, ge=1)


class StrictMode(Section):
    """Limits that protect a server from its clients."""

    enabled: bool | None = None
    max_query_limit: int | None = Field(None, ge=1)
    max_timeout: int | None = Field(None, ge=1, description="Seconds.")
    unindexed_filtering_retrieve: bool | None = None
    unindexed_filtering_update: bool | None = None
    search_max_hnsw_ef: int | None = Field(None, ge=1)
    search_allow_exact: bool | None = None
    search_max_oversampling: float | None = Field(None, ge=1)
    search_max_batchsize: int | None = Field(None, ge=1)
    upsert_max_batchsize: int | None = Field(None, ge=1)
    max_collection_vector_size_bytes: int | None = Field(None, ge=1)
    max_collection_payload_size_bytes: int | None = Field(None, ge=1)
    max_points_count: int | None = Field(None, ge=1)
    max_payload_index_count: int | None = Field(None, ge=0)
    filter_max_conditions: int | None = Field(None, ge=0)
    condition_max_size: int | None = Field(None, ge=0)
    read_rate_limit: int | None = Field(None, ge=1, description="A minute, for each replica.")
    write_rate_limit: int | None = Field(None, ge=1, description="A minute, for each replica.")
    max_resident_memory_percent: int | None = Field(None, ge=1, le=100)
    max_disk_usage_percent: int | None = Field(None, ge=1, le=100)
