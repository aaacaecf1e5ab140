"""The bodies that make or change a collection, by type: what a collection can never be leaves nothing behind.

A change is checked with the words of a creation that may be left out. ``sections`` has the words that a collection file
may use too; here are those that a server takes beyond it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from plinth.embedded.errors import ApiError, from_validation, refused
from plinth.embedded.names import check_vector
from plinth.qdrant import config_sections
from plinth.qdrant.config_sections import Binary, Hnsw, Product, Section, StrictMode, Wal
from plinth.qdrant.payload_index import PayloadIndex

Given = TypeVar("Given", bound=BaseModel)


def _named(vectors: dict[str, Any]) -> dict[str, Any]:
    for name in vectors:
        check_vector(name)
    return vectors


def _filled(vectors: dict[str, Any]) -> dict[str, Any]:
    if "" in vectors:
        raise ApiError(400, "Wrong input: Sparse vector name cannot be empty")
    return vectors


class Scalar(config_sections.Scalar):
    """One byte a dimension."""

    type: Literal["int8"]


class Quantization(Section):
    """One of the three."""

    scalar: Scalar | None = None
    product: Product | None = None
    binary: Binary | None = None


def _one(quantization: Quantization) -> Quantization:
    if len([kind for kind in quantization.model_fields_set if getattr(quantization, kind) is not None]) != 1:
        raise ValueError("name exactly one of scalar, product, binary")
    return quantization


OneQuantization = Annotated[Quantization, AfterValidator(_one)]


class Multivector(Section):
    """Several vectors a point."""

    comparator: Literal["max_sim"]


class Vectors(config_sections.Vectors):
    """One dense vector."""

    multivector_config: Multivector | None = None  # type: ignore[assignment]
    hnsw_config: Hnsw | None = None
    quantization_config: OneQuantization | None = None


class VectorsDiff(Section):
    """What of a dense vector changes."""

    hnsw_config: Hnsw | None = None
    quantization_config: OneQuantization | Literal["Disabled"] | None = None
    on_disk: bool | None = None


class SparseVectors(config_sections.SparseVectors):
    """One sparse vector."""

    modifier: Literal["none", "idf"] | None = None  # type: ignore[assignment]


class Optimizers(config_sections.Optimizers):
    """When segments are merged, cleaned and indexed."""

    indexing_threshold: int | None = Field(None, ge=0)
    flush_interval_sec: int | None = Field(None, ge=0)
    memmap_threshold: int | None = Field(None, ge=0)
    max_optimization_threads: Annotated[int, Field(ge=0)] | Literal["auto"] | None = None  # type: ignore[assignment]


DenseVectors = dict[str, Vectors]
One = Annotated[int, Field(ge=1)]


class Creation(Section):
    """`PUT /collections/{name}`."""

    vectors: Annotated[DenseVectors, AfterValidator(_named)] = Field(default_factory=dict)
    sparse_vectors: Annotated[dict[str, SparseVectors], AfterValidator(_filled), AfterValidator(_named)] | None = None
    shard_number: One | None = None
    sharding_method: Literal["auto", "custom"] | None = None
    replication_factor: One | None = None
    write_consistency_factor: One | None = None
    on_disk_payload: bool | None = None
    hnsw_config: Hnsw | None = None
    wal_config: Wal | None = None
    optimizers_config: Optimizers | None = None
    quantization_config: OneQuantization | None = None
    strict_mode_config: StrictMode | None = None
    metadata: dict[str, Any] | None = None


class SingleCreation(Creation):
    """The same with one vector without a name."""

    vectors: Vectors  # type: ignore[assignment]


class ParamsDiff(Section):
    """What of a collection's parameters changes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    replication_factor: One | None = None
    write_consistency_factor: One | None = None
    read_fan_out_factor: int | None = None
    on_disk_payload: bool | None = None


class Change(Section):
    """`PATCH /collections/{name}`; as on a real server, words that cannot change are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vectors: dict[str, VectorsDiff] | None = None
    sparse_vectors: dict[str, SparseVectors] | None = None
    params: ParamsDiff | None = None
    hnsw_config: Hnsw | None = None
    optimizers_config: Optimizers | None = None
    quantization_config: OneQuantization | Literal["Disabled"] | None = None
    strict_mode_config: StrictMode | None = None
    metadata: dict[str, Any] | None = None


class Index(PayloadIndex):
    """A payload index that the wheel can make."""

    stopwords: None = None


Name = Annotated[str, StringConstraints(min_length=1)]


class NewIndex(Section):
    """`PUT /collections/{name}/index`."""

    field_name: Name
    field_schema: str | Index | None = None
    field_type: str | Index | None = None


class CreateAlias(Section):
    """A new alias."""

    collection_name: str
    alias_name: str


class DeleteAlias(Section):
    """An alias that goes."""

    alias_name: str


class RenameAlias(Section):
    """An alias that is called otherwise."""

    old_alias_name: str
    new_alias_name: str


class AliasAction(Section):
    """One of the three."""

    create_alias: CreateAlias | None = None
    delete_alias: DeleteAlias | None = None
    rename_alias: RenameAlias | None = None


class AliasActions(Section):
    """`POST /collections/aliases`."""

    actions: list[AliasAction]


class Recovery(Section):
    """`PUT /collections/{name}/snapshots/recover`."""

    location: str
    priority: Literal["no_sync", "snapshot", "replica"] | None = None
    checksum: str | None = None
    api_key: str | None = None


def check(kind: type[Given], body: Any) -> Given:
    """A body by its type; raises :class:`ApiError` 400 or 422."""
    try:
        return kind.model_validate(body, strict=True)
    except ValidationError as error:
        raise from_validation(error) from error


def check_creation(body: Any) -> None:
    """Raise :class:`ApiError` for a collection that cannot be."""
    _check_possible(body)
    vectors = body.get("vectors") if isinstance(body, dict) else None
    single = isinstance(vectors, dict) and isinstance(vectors.get("size"), int)
    given = check(SingleCreation if single else Creation, body)
    dense = {""} if isinstance(given.vectors, Vectors) else set(given.vectors)
    same = dense & set(given.sparse_vectors or {})
    if same:
        raise ApiError(400, f"Wrong input: Dense and sparse vector names must be unique, both have {sorted(same)[0]!r}")
    if not dense and not given.sparse_vectors:
        raise ApiError(400, "Wrong input: the embedded engine has no collections without vectors; name one")


def check_change(body: Any) -> None:
    """Raise :class:`ApiError` for a change that cannot be."""
    _check_possible(body)
    check(Change, body)


def _check_possible(body: Any) -> None:
    """What a real server does with quantization and this engine cannot."""
    dense = body.get("vectors") if isinstance(body, dict) else None
    own = [dense, *dense.values()] if isinstance(dense, dict) else []
    for holder in [body, *own]:
        quantization = holder.get("quantization_config") if isinstance(holder, dict) else None
        if isinstance(quantization, dict) and "turbo" in quantization:
            raise refused("quantization 'turbo'")
