"""Payload indexes, and the options that each of their types supports."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from plinth.system.strict_model import StrictModel

COMMON = frozenset({"type", "on_disk", "enable_hnsw"})
TEXT = {"tokenizer", "min_token_len", "max_token_len", "lowercase", "ascii_folding", "phrase_matching", "stopwords"}
# Qdrant answers "completed" to an option that a type does not know, and drops it: is_tenant on an integer does nothing.
OPTIONS = {
    "keyword": COMMON | {"is_tenant"},
    "uuid": COMMON | {"is_tenant"},
    "integer": COMMON | {"is_principal", "lookup", "range"},
    "float": COMMON | {"is_principal"},
    "datetime": COMMON | {"is_principal"},
    "geo": COMMON,
    "bool": COMMON,
    "text": COMMON | TEXT,
}


class PayloadIndex(StrictModel):
    """An index over a payload field."""

    type: Literal["keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"]
    is_tenant: bool | None = None
    is_principal: bool | None = None
    on_disk: bool | None = None
    enable_hnsw: bool | None = Field(None, description="Whether hnsw_config.payload_m links within its values.")
    lookup: bool | None = None
    range: bool | None = None
    tokenizer: Literal["prefix", "whitespace", "word", "multilingual"] | None = None
    min_token_len: int | None = Field(None, ge=1)
    max_token_len: int | None = Field(None, ge=1)
    lowercase: bool | None = None
    ascii_folding: bool | None = None
    phrase_matching: bool | None = None
    stopwords: str | None = Field(None, description="A language, such as english.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        strange = sorted(self.model_dump(exclude_none=True).keys() - OPTIONS[self.type])
        if strange:
            able = ", ".join(sorted(kind for kind, options in OPTIONS.items() if strange[0] in options))
            raise ValueError(
                f"an index of type {self.type} has no {strange[0]}; remove it, or use a type that has: {able}"
            )
        return self
