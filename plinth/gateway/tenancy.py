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

Where each user has points of their own, the collection's file may name a field by which a user lets everybody of the
organisation read a point (S2-04). It changes what is read, never what is written, and others call such a point
`shared:{user}:{id}`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

from plinth.gateway.caller import Caller, is_organisation, is_user
from plinth.gateway.errors import ErrorKind, GatewayError, invalid
from plinth.gateway.qdrant_filters import Condition, has_values
from plinth.qdrant.search import NAMESPACE

COLLECTION_MAX = 128
ID_MAX_BYTES = 512
ORGANISATION_FIELD = "org_id"
# Where a point keeps the id that its writer gave; Qdrant itself takes numbers and UUIDs.
ID_FIELD = "_plinth_id"
# In the metadata of a collection that the gateway made.
MARK = "plinth_gateway"
SEGMENT = "segment:"
# Before the user and the id of a point that its user shares.
SHARED = "shared:"
_COLLECTION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{COLLECTION_MAX - 1}}}", re.ASCII)
_SWAPPED = str.maketrans("-_", "_-")


@dataclass(frozen=True)
class SharedCollection:
    """A collection of the stack that holds the points of all organisations.

    ``collection`` is what Qdrant calls it: an alias or a physical name. ``user_field`` is set where each user sees only
    their own points, and ``public_field`` where they may share one with their organisation: it is true there.
    ``search_params`` and ``presets`` are those of the collection's file.
    """

    name: str
    collection: str
    organisation_field: str = ORGANISATION_FIELD
    user_field: str | None = None
    public_field: str | None = None
    search_params: Mapping[str, Any] | None = None
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

    @property
    def public_field(self) -> str | None:
        """The field by which users share points of theirs, where the collection has one."""
        return self.shared.public_field if self.shared else None

    def filter(self, condition: Condition | None = None) -> Condition | None:
        """What the caller asked for, within what is theirs."""
        return _within(self.owner, condition) if self.shared else condition

    def read_filter(self, condition: Condition | None = None) -> Condition | None:
        """What the caller asked for, within what they may read.

        It is one filter: a search for each part, put together, found down to half of the nearest on a real server.
        """
        if self.public_field is None:
            return self.filter(condition)
        shared: dict[str, str | bool] = {**self._organisation, self.public_field: True}
        readable: Condition = {"should": [_within(self.owner, None), _within(shared, None)]}
        return {"must": [readable, condition] if condition else [readable]}

    def payload(self, given_id: str, payload: Mapping[str, Any], path: str) -> dict[str, Any]:
        """The payload to store; raises for one that names another owner. ``path`` is where it stands in the request."""
        if self.public_field is not None and not isinstance(payload.get(self.public_field, False), bool):
            raise invalid(f"{path}.{self.public_field}", "it says who reads the point, so it is true or false")
        for key, value in self.owner.items():
            if key in payload and payload[key] != value:
                raise GatewayError(
                    ErrorKind.permission_denied, f"{path}.{key} names another owner than the token; leave it out"
                )
        if ID_FIELD in payload:
            raise invalid(f"{path}.{ID_FIELD}", "this key is reserved; leave it out")
        return {**payload, **self.owner, ID_FIELD: given_id}

    def reads(self, payload: Mapping[str, Any]) -> bool:
        """Whether a stored point is the caller's, or one that its user shares with them."""
        if self.shared is None or _holds(payload, self.owner):
            return True
        return (
            self.public_field is not None
            and payload.get(self.public_field) is True
            and _holds(payload, self._organisation)
        )

    def own_id(self, given: str, path: str) -> str:
        """Qdrant's id of a point to write or delete; raises for an id that none of the caller's can have."""
        check_id(given, path)
        if self.public_field is not None and given.startswith(SHARED):
            raise GatewayError(
                ErrorKind.permission_denied,
                f"{path}: an id with '{SHARED}' is of a point that is shared, to be read only",
            )
        return point_id(self, given)

    def readable_id(self, given: str, path: str) -> str:
        """Qdrant's id of a point to read: the caller's, or one that is shared."""
        shared = _shared_point(given) if self.public_field is not None else None
        if shared is None:
            return point_id(self, check_id(given, path))
        user, own = shared
        return point_id(replace(self, owner={**self.owner, self._user_field: user}), check_id(own, path))

    def shown_id(self, given: str, payload: Mapping[str, Any]) -> str:
        """A stored point's id as the caller names it."""
        if self.public_field is None:
            return given
        user = str(payload.get(self._user_field))
        if user == self.owner[self._user_field] and not given.startswith(SHARED):
            return given
        return shared_id(user, given)

    @property
    def _organisation(self) -> dict[str, str]:
        return {key: value for key, value in self.owner.items() if key != self._user_field}

    @property
    def _user_field(self) -> str:
        return (self.shared.user_field if self.shared else None) or ""


def _within(payload: Mapping[str, str | bool], condition: Condition | None) -> Condition:
    fields = has_values(payload)
    return {"must": [*fields, condition] if condition else fields}


def _holds(payload: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    return all(payload.get(key) == value for key, value in fields.items())


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


def shared_id(user: str, given: str) -> str:
    """The id by which others name a point that its user shares."""
    return SHARED + ":".join(quote(part, safe="", errors="replace") for part in (user, given))


def _shared_point(given: str) -> tuple[str, str] | None:
    """The user and the id of a point that is shared; None for any other id."""
    if not given.startswith(SHARED):
        return None
    parts = [unquote(part) for part in given.removeprefix(SHARED).split(":")]
    # One that is written otherwise is an id like any other.
    if len(parts) != 2 or not is_user(parts[0]) or shared_id(*parts) != given:
        return None
    return parts[0], parts[1]


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
