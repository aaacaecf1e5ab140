"""Deterministic vectors for tests (S0-02): the same text has the same vector on every machine."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.qdrant.search import mock_vector

MODEL, VERSION = "mock", "v1"


class MockEmbedder:
    """Unit vectors that look random."""

    model = MODEL
    version = VERSION

    def __init__(self, dimension: int = 384) -> None:
        self.dimension = dimension

    async def embed(self, texts: Sequence[str], within_s: float) -> list[list[float]]:
        """A vector for each text."""
        del within_s
        # No asset has an empty id, so no text has the vector of a segment.
        return [mock_vector("", text, self.dimension) for text in texts]

    async def close(self) -> None:
        """There is nothing to end."""
