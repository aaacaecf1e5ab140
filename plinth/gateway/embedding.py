"""From texts to vectors: what a provider of embeddings offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

DIMENSION_MAX = 65535


class Embedder(Protocol):
    """A model that embeds texts. ``model`` and ``version`` name it, ``dimension`` is the length of its vectors."""

    model: str
    version: str
    dimension: int

    async def embed(self, texts: Sequence[str], within_s: float) -> list[list[float]]:
        """A vector for each text; raises :class:`plinth.gateway.errors.GatewayError` where the provider fails."""

    async def close(self) -> None:
        """End its connections and threads."""
