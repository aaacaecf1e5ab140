"""Tokens that open a part (`service.jwt_rbac`): HS256 with one of the full keys, as a real server checks them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import jwt
from pydantic import BaseModel, ConfigDict, ValidationError

# Clocks may be this far apart, in seconds.
LEEWAY_S = 30
Level = Literal["r", "rw", "prw"]


class TokenError(Exception):
    """A token that opens nothing: changed, expired, or with claims that are not understood."""


class CollectionAccess(BaseModel):
    """What a token opens of a collection: `r` reads, `prw` writes points, `rw` indexes and snapshots too."""

    model_config = ConfigDict(extra="forbid")

    collection: str
    access: Level


class Claims(BaseModel):
    """What a token says; without `access` it opens everything. `value_exists` is refused: nothing here checks it."""

    model_config = ConfigDict(extra="forbid")

    exp: float | None = None
    access: Literal["r", "m"] | list[CollectionAccess] = "m"
    subject: str | None = None
    sub: str | None = None


@dataclass(frozen=True)
class Granted:
    """Which collections a token opens, and how far."""

    collections: dict[str, Level]

    def allows(self, collection: str, levels: Collection[Level]) -> bool:
        """Whether it opens a collection, by exactly this name, to one of these levels."""
        level = self.collections.get(collection)
        return level is not None and level in levels


def is_token(given: str) -> bool:
    """Whether a text has the form of a token signed by HS256: what has not is a key that nobody knows."""
    try:
        return bool(jwt.get_unverified_header(given).get("alg") == "HS256")
    except jwt.PyJWTError:
        return False


def checked(token: str, keys: Iterable[str | None]) -> Literal["r", "m"] | Granted:
    """What a token opens; raises :class:`TokenError`."""
    claims = next((claims for key in keys if key and (claims := _verified(token, key)) is not None), None)
    if claims is None:
        raise TokenError("its signature is not of one of the keys")
    try:
        parsed = Claims.model_validate(claims)
    except ValidationError:
        raise TokenError("it has claims that are not understood") from None
    if parsed.exp is not None and parsed.exp + LEEWAY_S < time.time():
        raise TokenError("it has expired")
    if isinstance(parsed.access, list):
        return Granted({each.collection: each.access for each in parsed.access})
    return parsed.access


def _verified(token: str, key: str) -> dict[str, Any] | None:
    try:
        # What it says is checked by its claims' own type.
        return jwt.decode(token, key, ["HS256"], options={"verify_exp": False, "verify_sub": False})
    except jwt.PyJWTError:
        return None
