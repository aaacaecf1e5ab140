"""How the rows of a data set are stored as points, and told again from what is found."""

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
    """As the gate stores them: a point's id is its row. ``scratch`` is the tenant of what a run writes."""

    scratch: str = SCRATCH

    def identifier(self, row: int) -> int | str:
        """The point's id in Qdrant."""
        return row

    def payload(self, dataset: Dataset, row: int) -> dict[str, Any]:
        """What is stored with a point."""
        return payload(dataset, row)

    def shown(self) -> list[str]:
        """The payload fields by which :meth:`row` tells a point."""
        return []

    def row(self, point: dict[str, Any]) -> int:
        """The row of a point that was found."""
        return int(point["id"])


@dataclass(frozen=True)
class StoredByGateway(Stored):
    """As the gateway stores them for the organisation that has the collection, of which all is that a run writes."""

    tenant: Tenant = field(kw_only=True)

    def identifier(self, row: int) -> int | str:
        """The gateway's, for the row as the caller's id."""
        return point_id(self.tenant, str(row))

    def payload(self, dataset: Dataset, row: int) -> dict[str, Any]:
        """With the id that the caller sees."""
        return {**payload(dataset, row), ID_FIELD: str(row)}

    def shown(self) -> list[str]:
        """The caller's id."""
        return [ID_FIELD]

    def row(self, point: dict[str, Any]) -> int:
        """By the caller's id."""
        return int(point["payload"][ID_FIELD])


BY_ROW = Stored()


def organisation_of(collection: str) -> tuple[str, str]:
    """The load organisation that a collection of the gate's is of, and what it calls it."""
    parsed = parse_collection_name(collection)
    if parsed is None:
        raise ValueError(f"{collection} is no name that the gateway gives")
    return parsed


def stored_by_gateway(collection: str) -> StoredByGateway:
    """Points of a collection of the gate's."""
    organisation, name = organisation_of(collection)
    tenant = tenant_of(Caller(organisation, "", frozenset()), name, {})
    return StoredByGateway(organisation, tenant=tenant)


def gateway_spec(spec: CollectionSpec) -> CollectionSpec:
    """The gate's collection as the gateway searches one of an organisation, under a name that is the gateway's too.

    A run without the gateway must not use it again, for its points have other ids.
    """
    return unquantized(spec).model_copy(update={"name": f"{PREFIX}gateway-{spec.name.removeprefix(PREFIX)}"})


def unquantized(spec: CollectionSpec) -> CollectionSpec:
    """Without quantization and without parameters of its own, as the gateway makes collections and searches them.

    The indexes stay, or a search within a tenant would measure a scan.
    """
    return spec.model_copy(update={"quantization_config": None, "search": Search()})


def marked_for_gateway(spec: CollectionSpec) -> CollectionSpec:
    """The same with the gateway's mark, so that it is the load organisation's."""
    mark = {MARK: {"organisation": organisation_of(spec.name)[0]}}
    return spec.model_copy(update={"metadata": {**(spec.metadata or {}), **mark}})
