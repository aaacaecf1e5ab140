"""The settings of a provider of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from plinth.gateway.embedding import DIMENSION_MAX
from plinth.system.strict_model import StrictModel

Dimension = Annotated[int, Field(ge=1, le=DIMENSION_MAX)]


class MockProvider(StrictModel):
    """Vectors that a text alone determines, of no meaning (S0-02)."""

    name: Literal["mock"] = "mock"
    dimension: Dimension = 384


class MiniLMProvider(StrictModel):
    """all-MiniLM-L6-v2 on this machine's processors, 384 values a vector."""

    name: Literal["minilm"] = "minilm"
    dimension: int = Field(384, ge=384, le=384)


class HttpProvider(StrictModel):
    """An OpenAI-compatible API; ``url`` is the address that `/embeddings` is below."""

    name: Literal["http"] = "http"
    url: str
    model: str = Field(min_length=1)
    version: str = Field("v1", min_length=1, description="Part of a segment's id; change it with the model's weights.")
    dimension: Dimension
    api_key_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = Field(30, gt=0, description="Of one request, in seconds.")
    attempts: int = Field(5, ge=1, description="Of one batch, while its deadline lasts.")
    failures_to_open: int = Field(5, ge=1, description="Failures in a row after which no request is sent for a while.")
    open_s: float = Field(30, gt=0, description="That while, in seconds.")


Provider = Annotated[MockProvider | MiniLMProvider | HttpProvider, Field(discriminator="name")]
