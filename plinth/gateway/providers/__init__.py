"""Providers of embeddings: `mock` for tests, `minilm` on this machine, `http` for any OpenAI-compatible API."""

from __future__ import annotations

from plinth.gateway.embedding import Embedder
from plinth.gateway.providers.config import HttpProvider, MockProvider, Provider
from plinth.gateway.providers.http import HttpEmbedder
from plinth.gateway.providers.minilm import MiniLMEmbedder
from plinth.gateway.providers.mock import MockEmbedder

__all__ = ["Provider", "embedder_for"]


def embedder_for(provider: Provider) -> Embedder:
    """The provider of these settings; its user closes it. Raises :class:`plinth.errors.UserError` for an unusable one."""
    if isinstance(provider, MockProvider):
        return MockEmbedder(provider.dimension)
    if isinstance(provider, HttpProvider):
        return HttpEmbedder(provider)
    return MiniLMEmbedder()
