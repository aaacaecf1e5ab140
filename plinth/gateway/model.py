"""What callers ask and get, whatever the protocol: checked here once, and bounded."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from plinth.gateway.embedding import DIMENSION_MAX
from plinth.gateway.filters import Filter, Path
from plinth.system.strict_model import StrictModel

POINTS_MAX = 1000
IDS_MAX = 1000
QUERIES_MAX = 100
# Of top_k, exclusive (EC-006).
TOP_K_MAX = 10_000
QUERY_TEXT_MAX = 32_768
# Messages of gRPC, the gateway's and Qdrant's, are 100 levels deep at most, and each of a payload is three of them.
PAYLOAD_DEPTH_MAX = 24


def _is_vector(values: list[float]) -> list[float]:
    if not values:
        raise ValueError("a vector has at least one value")
    # Qdrant keeps 32 bits of each; what does not fit becomes an infinity there.
    with np.errstate(over="ignore"):
        if not np.isfinite(np.asarray(values, dtype=np.float64).astype(np.float32)).all():
            raise ValueError("a vector has finite values of 32 bits")
    return values


def _is_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """What Qdrant and both protocols can hold, and give back as it was."""
    layer: list[Any] = [payload]
    for _ in range(PAYLOAD_DEPTH_MAX):
        values = [value for outer in layer for value in (outer.values() if isinstance(outer, dict) else outer)]
        for value in values:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("a number of a payload is finite")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError("an integer of a payload has 64 bits")
        layer = [value for value in values if isinstance(value, dict | list)]
        if not layer:
            return payload
    raise ValueError(f"a payload is {PAYLOAD_DEPTH_MAX} levels deep at most")


Payload = Annotated[dict[str, Any], AfterValidator(_is_payload)]
Vector = Annotated[
    list[Annotated[float, Field(allow_inf_nan=True)]], Field(max_length=DIMENSION_MAX), AfterValidator(_is_vector)
]
Count = Annotated[StrictInt, Field(ge=1)]


class Message(StrictModel):
    """A request or an answer; a request with an unknown field is refused."""


class Hnsw(Message):
    """The graph's links a point, and the candidates while it is built."""

    m: int | None = Field(None, ge=0, le=128)
    ef_construct: int | None = Field(None, ge=4, le=4096)


class CreateCollection(Message):
    """A new collection of the caller's organisation (BR-002)."""

    name: StrictStr
    dimension: Annotated[StrictInt, Field(ge=1, le=DIMENSION_MAX, description="Values of each vector.")]
    distance: Literal["Cosine", "Euclidean", "Dot"]
    on_disk: StrictBool = Field(False, description="Keep vectors on disk, not in memory.")
    hnsw: Hnsw | None = None


class Collection(Message):
    """A collection as its organisation sees it; ``points`` counts its own points alone."""

    name: str
    dimension: int
    distance: Literal["Cosine", "Euclidean", "Dot", "Manhattan"]
    points: int
    shared: bool = Field(description="Whether all organisations have points in it, each seeing its own.")


class Point(Message):
    """A vector with its payload, under an id of the caller's choice (BR-003)."""

    id: StrictStr
    vector: Vector
    payload: Payload = Field(default_factory=dict)


class _Shown(Message):
    with_payload: StrictBool | list[Path] = Field(True, description="The payload, or these fields of it.")
    with_vectors: StrictBool = False


class Search(_Shown):
    """The nearest points (BR-004), by a vector or by a text that the gateway embeds."""

    vector: Vector | None = None
    text: Annotated[StrictStr, Field(min_length=1, max_length=QUERY_TEXT_MAX)] | None = None
    top_k: Count = 10
    score_threshold: float | None = Field(None, allow_inf_nan=False)
    filter: Filter | None = None
    preset: StrictStr | None = Field(None, description="A filter that the collection's file declares.")
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict, description="Those of the preset.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.top_k >= TOP_K_MAX:
            raise ValueError(f"top_k is below {TOP_K_MAX}")
        if self.parameters and not self.preset:
            raise ValueError("parameters are those of a preset; name it")
        return self._one_query()

    def _one_query(self) -> Self:
        if (self.vector is None) == (self.text is None):
            raise ValueError("a search has a vector or a text, and not both")
        return self


class HybridSearch(Search):
    """Nearest by vector, and nearest among those whose text has the words, fused by rank (S3-03).

    Without a vector the text is embedded too.
    """

    text_field: Path = Field("content", description="The payload field whose words are searched; it has a text index.")

    def _one_query(self) -> Self:
        if self.text is None:
            raise ValueError("a hybrid search has a text; a vector may go with it")
        return self


class Get(_Shown):
    """Points by their ids (BR-007)."""

    ids: Annotated[list[StrictStr], Field(min_length=1, max_length=IDS_MAX)]


class Scroll(_Shown):
    """The points that the caller may read page by page, in the order of Qdrant's ids."""

    filter: Filter | None = None
    limit: Annotated[StrictInt, Field(ge=1, le=1000)] = 100
    cursor: StrictStr | None = Field(None, description="The `next` of the page before.", max_length=64)


class DeletePoints(Message):
    """Points to delete: by their ids, or all that meet a filter."""

    ids: Annotated[list[StrictStr], Field(min_length=1, max_length=IDS_MAX)] | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("what is deleted is named by ids or by a filter, and not both")
        return self


class StoredPoint(Message):
    """A point as it is stored."""

    id: str
    payload: dict[str, Any] | None = None
    vector: list[float] | None = None


class Hit(StoredPoint):
    """A point that a search returns, and how near it is."""

    score: float


class Page(Message):
    """Points, and the cursor of the next page; None on the last."""

    points: list[StoredPoint]
    next: str | None = None
