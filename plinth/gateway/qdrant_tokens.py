"""Qdrant's own tokens: each opens one collection, to read or to write points, for some minutes.

The gateway has the whole key, with which Qdrant checks them (HS256). So whatever goes wrong in a request of the
gateway, it reaches no other collection than the one that the request is for, and changes nothing where it is to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import jwt

# Seconds for which a token is good, and before its end within which it is not used any more.
LIFETIME_S, MARGIN_S = 600, 120
# Of collections; beyond this all are made anew.
TOKENS_MAX = 10_000
# Whom Qdrant's audit log names.
SUBJECT = "plinth-gateway"


@dataclass(frozen=True, slots=True)
class Access:
    """What a request does to a collection, or to what an alias of this name leads to: reads, or writes points."""

    collection: str
    level: Literal["r", "prw"]


class QdrantTokens:
    """Signs tokens with a key of Qdrant's, and keeps them while they are good."""

    def __init__(self, key: str, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now
        self._headers: dict[Access, tuple[float, Mapping[str, str]]] = {}

    def headers(self, access: Access) -> Mapping[str, str]:
        """What goes with a request in place of the key."""
        now = self._now()
        expires_at, headers = self._headers.get(access, (0.0, {}))
        if expires_at - MARGIN_S < now:
            if len(self._headers) >= TOKENS_MAX:
                self._headers.clear()
            expires_at = now + LIFETIME_S
            headers = {"api-key": self._signed(access, expires_at)}
            self._headers[access] = (expires_at, headers)
        return headers

    def _signed(self, access: Access, expires_at: float) -> str:
        claims = {
            "exp": int(expires_at),
            "access": [{"collection": access.collection, "access": access.level}],
            "subject": SUBJECT,
        }
        return jwt.encode(claims, self._key, "HS256")
