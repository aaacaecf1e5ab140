"""The stack's own collections, as the gateway sees them: those that it shares, and the names that nobody gets."""

from __future__ import annotations

from collections.abc import Iterable

from plinth.gateway.tenancy import SharedCollection
from plinth.qdrant.spec import CollectionSpec


def shared_collections(specs: Iterable[CollectionSpec]) -> dict[str, SharedCollection]:
    """Those with `tenancy: payload`, by the names that callers use: each alias, or the collection's own name."""
    return {
        name: _shared(name, spec, spec.tenant)
        for spec in specs
        if spec.tenancy and spec.tenant
        for name in spec.aliases or (spec.name,)
    }


def reserved_names(specs: Iterable[CollectionSpec]) -> frozenset[str]:
    """What no organisation's collection may be called in Qdrant."""
    return frozenset(name for spec in specs for name in (spec.name, *spec.aliases))


def _shared(name: str, spec: CollectionSpec, tenant: str) -> SharedCollection:
    user = spec.tenant_is == "user"
    fields = {"user_field": tenant, "public_field": spec.public_field} if user else {"organisation_field": tenant}
    return SharedCollection(
        name,
        name,
        search_params=spec.search.params(),
        score_threshold=spec.search.score_threshold,
        presets=spec.presets,
        **fields,
    )
