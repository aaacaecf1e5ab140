"""Providers of embeddings: `mock` for tests, `minilm` on this machine, `http` for any OpenAI-compatible API."""

from __future__ import annotations

from plinth.gateway.embedding import Embedder
from plinth.gateway.providers.config import HttpProvider, MockProvider, Provider


def embedder_for(provider: Provider) -> Embedder:
    """What embeds by these settings; its user closes it. Raises :class:`plinth.errors.UserError` where none can."""
    # Each is imported on use: one needs the weights' libraries, another TLS.
    if isinstance(provider, MockProvider):
        from plinth.gateway.providers.mock import MockEmbedder

        return MockEmbedder(provider.dimension)
    if isinstance(provider, HttpProvider):
        from plinth.gateway.providers.http import HttpEmbedder

        return HttpEmbedder(provider)
    from plinth.gateway.providers.minilm import MiniLMEmbedder

    return MiniLMEmbedder()
