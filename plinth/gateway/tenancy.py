"""From what a caller names to what Qdrant has: the one place where organisations are kept apart (BR-001).

A collection of an organisation is `{organisation}_{collection}`, with `-` of the organisation as `_` and `_` as `-`. So
that two pairs never meet, a collection with underscores in its own name has their number behind a `~`:

    org-001 + documents    org_001_documents
    org-1   + 2_x          org_1_2_x~1
    org_1_2 + x            org-1-2_x
    org-1-2 + x            org_1_2_x

The name is read back from its end: the number (none is 0) says how many underscores are the collection's, the one
before them parts the two names, and the organisation's signs change back. Neither name can have a `~`.

A shared collection holds the points of all organisations. Each point carries its organisation, and every read, write,
delete, scroll and count is filtered by it here.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from qdrant_client import models

from plinth.gateway.caller import Caller, is_organisation
from plinth.gateway.errors import ErrorKind, GatewayError, invalid
from plinth.qdrant.search import NAMESPACE

COLLECTION_MAX = 128
ID_MAX_BYTES = 512
ORGANISATION_FIELD = "org_id"
# Where a point keeps the id that its writer gave; Qdrant itself takes numbers and UUIDs.
ID_FIELD = "_plinth_id"
# In the metadata of a collection that the gateway made.
MARK = "plinth_gateway"
SEGMENT = "segment:"
_COLLECTION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{COLLECTION_MAX - 1}}}", re.ASCII)
_SWAPPED = str.maketrans("-_", "_-")


@dataclass(frozen=True)
class SharedCollection:
    """A collection of the stack that holds the points of all organisations.

    ``collection`` is what Qdrant calls it: an alias or a physical name. ``user_field`` is set where each user sees only
    their own points. ``search_params`` and ``presets`` are those of the collection's file.
    """

    name: str
    collection: str
    organisation_field: str = ORGANISATION_FIELD
    user_field: str | None = None
    search_params: models.SearchParams | None = None
    score_threshold: float | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def owner(self, caller: Caller) -> dict[str, str]:
        """The payload fields of every point that the caller writes, and of every one that they see."""
        owner = {ORGANISATION_FIELD: caller.organisation, self.organisation_field: caller.organisation}
        return owner | ({self.user_field: caller.user} if self.user_field else {})


@dataclass(frozen=True)
class Tenant:
    """A collection as one caller may use it.

    ``collection`` is Qdrant's name, ``owner`` the payload fields that each point has, ``shared`` what the file of a
    collection says in which others have points too.
    """

    name: str
    collection: str
    owner: Mapping[str, str]
    shared: SharedCollection | None = None

    def filter(self, condition: models.Filter | None = None) -> models.Filter | None:
        """What the caller asked for, within what is theirs."""
        if self.shared is None:
            return condition
        own: list[Any] = [
            models.FieldCondition(key=field, match=models.MatchValue(value=value))
            for field, value in self.owner.items()
        ]
        return models.Filter(must=[*own, condition] if condition else own)

    def payload(self, given_id: str, payload: Mapping[str, Any], path: str) -> dict[str, Any]:
        """The payload to store; raises for one that names another owner. ``path`` is where it stands in the request."""
        for key, value in self.owner.items():
            if key in payload and payload[key] != value:
                raise GatewayError(
                    ErrorKind.permission_denied, f"{path}.{key} names another owner than the token; leave it out"
                )
        if ID_FIELD in payload:
            raise invalid(f"{path}.{ID_FIELD}", "this key is reserved; leave it out")
        return {**payload, **self.owner, ID_FIELD: given_id}

    def owns(self, payload: Mapping[str, Any]) -> bool:
        """Whether a stored point is the caller's."""
        return self.shared is None or all(payload.get(key) == value for key, value in self.owner.items())


def collection_name(organisation: str, collection: str) -> str:
    """Qdrant's name for a collection of an organisation; both names are valid (:func:`check_collection`)."""
    underscores = collection.count("_")
    marker = f"~{underscores}" if underscores else ""
    return f"{organisation.translate(_SWAPPED)}_{collection}{marker}"


def parse_collection_name(name: str) -> tuple[str, str] | None:
    """The organisation and its name for the collection; None for a name that the gateway gives to none."""
    body, _, marker = name.partition("~")
    if not re.fullmatch(r"([1-9]\d{0,3})?", marker, re.ASCII):
        return None
    parts = body.rsplit("_", int(marker or 0) + 1)
    if len(parts) != int(marker or 0) + 2:
        return None
    organisation, collection = parts[0].translate(_SWAPPED), "_".join(parts[1:])
    valid = is_organisation(organisation) and _COLLECTION.fullmatch(collection)
    # One that is written otherwise than the gateway writes it is somebody else's.
    return (organisation, collection) if valid and collection_name(organisation, collection) == name else None


def check_collection(name: str, path: str = "collection") -> str:
    """The name; raises where no collection can have it."""
    if not _COLLECTION.fullmatch(name):
        raise invalid(
            path,
            f"a collection's name has letters and digits of ASCII, '.', '_' and '-', a letter or digit first, "
            f"{COLLECTION_MAX} at most",
        )
    return name


def tenant_of(caller: Caller, name: str, shared: Mapping[str, SharedCollection]) -> Tenant:
    """The collection that a caller means by a name: a shared one, else one of their organisation."""
    check_collection(name)
    if name in shared:
        return Tenant(name, shared[name].collection, shared[name].owner(caller), shared[name])
    return Tenant(name, collection_name(caller.organisation, name), {ORGANISATION_FIELD: caller.organisation})


def point_id(tenant: Tenant, given: str) -> str:
    """Qdrant's id of a point: a UUIDv5 of the owner and the id that was given.

    That of a segment (:func:`segment_id`) is the one of :func:`plinth.qdrant.search.point_id_for`.
    """
    owner = list(dict.fromkeys(tenant.owner.values()))
    return str(uuid.uuid5(NAMESPACE, json.dumps([*owner, *_parts(given)])))


def segment_id(asset_id: str, segment: str, model: str, model_ver: str) -> str:
    """The id, as callers give it and see it, of a segment of an asset that was embedded by a version of a model."""
    return SEGMENT + ":".join(quote(part, safe="") for part in (asset_id, segment, model, model_ver))


def _parts(given: str) -> Sequence[str]:
    """What tells one given id from all others; that of a segment is its four parts."""
    if given.startswith(SEGMENT):
        parts = [unquote(part) for part in given.removeprefix(SEGMENT).split(":")]
        if len(parts) == 4 and segment_id(*parts) == given:
            return parts
    return [given]


def check_id(given: str, path: str) -> str:
    """The id; raises for one that no point can have."""
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise invalid(path, "an id is text that UTF-8 can hold") from None
    if not given or size > ID_MAX_BYTES or "\0" in given:
        raise invalid(path, f"an id has 1 to {ID_MAX_BYTES} bytes and no NUL")
    return given
