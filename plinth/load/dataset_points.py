"""How the rows of a data set are stored as points, and identified in search results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from plinth.gateway.caller import Caller
from plinth.gateway.tenancy import ID_FIELD, MARK, Tenant, parse_collection_name, point_id, tenant_of
from plinth.load.dataset import Dataset, payload
from plinth.load.workload import SCRATCH
from plinth.qdrant.load_mark import PREFIX
from plinth.qdrant.spec import CollectionSpec, Search


@dataclass(frozen=True)
class Stored:
    """Points as the gate stores them: the id is the row. ``scratch`` is the tenant of points that a run writes."""

    scratch: str = SCRATCH

    def identifier(self, row: int) -> int | str:
        """Return the point's id in Qdrant."""
        return row

    def payload(self, dataset: Dataset, row: int) -> dict[str, Any]:
        """Return the payload of a point."""
        return payload(dataset, row)

    def shown(self) -> list[str]:
        """Return the payload fields that :meth:`row` needs to identify a point."""
        return []

    def row(self, point: dict[str, Any]) -> int:
        """Return the row of a point in a search result."""
        return int(point["id"])


@dataclass(frozen=True)
class StoredByGateway(Stored):
    """Points as the gateway stores them for the collection's organisation, whose points are all written by runs."""

    tenant: Tenant = field(kw_only=True)

    def identifier(self, row: int) -> int | str:
        """Return the gateway's id for the row as the caller's id."""
        return point_id(self.tenant, str(row))

    def payload(self, dataset: Dataset, row: int) -> dict[str, Any]:
        """Return the payload with the id that the caller sees."""
        return {**payload(dataset, row), ID_FIELD: str(row)}

    def shown(self) -> list[str]:
        """Return the field of the caller's id."""
        return [ID_FIELD]

    def row(self, point: dict[str, Any]) -> int:
        """Return the row by the caller's id."""
        return int(point["payload"][ID_FIELD])


BY_ROW = Stored()


def organisation_of(collection: str) -> tuple[str, str]:
    """Return the load organisation of a collection of the gate, and the organisation's name for it."""
    parsed = parse_collection_name(collection)
    if parsed is None:
        raise ValueError(f"{collection} is no name that the gateway gives")
    return parsed


def stored_by_gateway(collection: str) -> StoredByGateway:
    """Return how the points of a collection of the gate are stored."""
    organisation, name = organisation_of(collection)
    tenant = tenant_of(Caller(organisation, "", frozenset()), name, {})
    return StoredByGateway(organisation, tenant=tenant)


def gateway_spec(spec: CollectionSpec) -> CollectionSpec:
    """Return the gate's collection as the gateway searches an organisation's, under one of the gateway's names.

    A run without the gateway must not reuse it, since its points have other ids.
    """
    return unquantized(spec).model_copy(update={"name": f"{PREFIX}gateway-{spec.name.removeprefix(PREFIX)}"})


def unquantized(spec: CollectionSpec) -> CollectionSpec:
    """Return the spec without quantization and search parameters, as the gateway creates collections and searches them.

    The indexes stay, or a search within a tenant would measure a scan.
    """
    return spec.model_copy(update={"quantization_config": None, "search": Search()})


def marked_for_gateway(spec: CollectionSpec) -> CollectionSpec:
    """Return the spec with the gateway's mark, which makes it the load organisation's."""
    mark = {MARK: {"organisation": organisation_of(spec.name)[0]}}
    return spec.model_copy(update={"metadata": {**(spec.metadata or {}), **mark}})
