"""Signed tokens: the only source of who a caller is.

HS256 with a key of the stack is for development. In production an identity provider signs with RS256 or ES256, and the
gateway knows its public keys by a JWKS file or URL; a key that is new there is fetched when a token names it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx
import jwt
from jwt import PyJWK, PyJWKSet

from plinth.errors import UserError
from plinth.gateway.caller import Caller, Scope, is_organisation, is_user
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.system.http_client import async_client_for

TOKEN_MAX_BYTES = 8192
KEY_MIN_BYTES = 32
ISSUER, AUDIENCE = "plinth", "plinth-gateway"
CLOCK_SKEW_S = 30
TTL_DEFAULT_S, TTL_MAX_S = 3600, 30 * 86_400
PUBLIC_ALGORITHMS = ("RS256", "ES256")
# A token with an unknown `kid` has the keys fetched again, no more often than this.
REFETCH_S = 10.0
# A token is not verified again for this long, in seconds: that takes longer than all else a gateway does for a search.
# It is also how long a token still counts after its key was withdrawn.
VERIFIED_S, VERIFIED_MAX = 5.0, 1024


class KeySet(Protocol):
    """The keys that sign."""

    algorithms: Sequence[str]

    async def key(self, kid: str | None) -> Any:
        """The key of this id; raises KeyError where there is none."""


class SharedKey:
    """One secret that signs and verifies."""

    algorithms: Sequence[str] = ("HS256",)

    def __init__(self, secret: str) -> None:
        if len(secret.encode()) < KEY_MIN_BYTES:
            raise UserError(f"The gateway's signing key has {KEY_MIN_BYTES} bytes at least; set a longer one.")
        self._secret = secret

    async def key(self, _kid: str | None) -> Any:
        """The secret, whatever a token says of its key."""
        return self._secret


class PublicKeys:
    """A JWKS of a file or an address. Keys that are gone from it are gone here after ``max_age_s``."""

    algorithms: Sequence[str] = PUBLIC_ALGORITHMS

    def __init__(self, source: str, *, max_age_s: float = 300.0) -> None:
        self._source = source
        self._max_age_s = max_age_s
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched_at = -max_age_s
        self._fetching = asyncio.Lock()

    async def key(self, kid: str | None) -> Any:
        """The key of this id, or the only one there is where a token names none."""
        age = time.monotonic() - self._fetched_at
        if age > self._max_age_s or (kid not in self._keys and age > REFETCH_S):
            await self._fetch()
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values())).key
        return self._keys[kid].key

    async def _fetch(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._fetched_at < REFETCH_S and self._keys:
                return
            try:
                keys = PyJWKSet.from_dict(await self._document()).keys
            except (OSError, ValueError, UserError, httpx.HTTPError, jwt.PyJWTError):
                # Those that are known serve on: whoever signs may be away for a while.
                if not self._keys:
                    raise GatewayError(
                        ErrorKind.unavailable, "the keys that tokens are checked with cannot be read", retry_after_s=5
                    ) from None
                return
            self._keys = {key.key_id: key for key in keys if key.key_type in ("RSA", "EC")}
            self._fetched_at = time.monotonic()

    async def _document(self) -> dict[str, Any]:
        if not self._source.startswith(("http://", "https://")):
            text = await asyncio.to_thread(Path(self._source).read_text)
        else:
            async with async_client_for(self._source, timeout=5) as client:
                answer = await client.get(self._source)
                answer.raise_for_status()
                text = answer.text
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("a JWKS is an object")
        return document


@dataclass(frozen=True)
class Claims:
    """What a token must say, and the names of the claims that hold the organisation and the scopes."""

    issuer: str | None = ISSUER
    audience: str = AUDIENCE
    organisation: str = "org_id"
    scopes: str = "scope"


class TokenVerifier:
    """From the value of an Authorization header to the caller."""

    def __init__(self, keys: KeySet, claims: Claims = Claims()) -> None:
        self._keys = keys
        self._claims = claims
        self._callers: dict[str, tuple[float, Caller]] = {}

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent a request; raises :class:`GatewayError` where the token proves nobody."""
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise _refused("a request carries a token: Authorization: Bearer TOKEN")
        if len(token) > TOKEN_MAX_BYTES:
            raise _refused("the token is too long")
        until, caller = self._callers.get(token, (0.0, None))
        if caller is None or time.monotonic() >= until:
            claims = await self._verified(token.strip())
            caller = self._caller(claims)
            self._remember(token, caller, int(claims["exp"]))
        return caller

    def _remember(self, token: str, caller: Caller, expires_at: int) -> None:
        if len(self._callers) >= VERIFIED_MAX:
            self._callers.clear()
        remaining_s = expires_at + CLOCK_SKEW_S - time.time()
        self._callers[token] = time.monotonic() + min(VERIFIED_S, remaining_s), caller

    async def _verified(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.key(header.get("kid"))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self._keys.algorithms),
                audience=self._claims.audience,
                issuer=self._claims.issuer,
                leeway=CLOCK_SKEW_S,
                options={"require": ["exp", "aud", "sub"], "verify_iat": True},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise _refused("the token is for another audience") from None
        except (jwt.PyJWTError, KeyError, ValueError, TypeError):
            # Why is nothing for who sent it: that would help to make a better one.
            raise _refused("the token is not valid") from None
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        organisation, user = claims.get(self._claims.organisation), claims.get("sub")
        if not isinstance(organisation, str) or not is_organisation(organisation):
            raise _refused(f"the token's {self._claims.organisation} names no organisation")
        if not isinstance(user, str) or not is_user(user):
            raise _refused("the token's sub names no user")
        given = claims.get(self._claims.scopes, "")
        words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
        return Caller(organisation, user, frozenset(scope for scope in Scope if scope.value in words))


def issue_token(
    secret: str,
    organisation: str,
    user: str,
    *,
    scopes: Sequence[Scope] = tuple(Scope),
    ttl_s: int = TTL_DEFAULT_S,
    issuer: str | None = ISSUER,
    audience: str = AUDIENCE,
    organisation_claim: str = "org_id",
    scopes_claim: str = "scope",
) -> str:
    """A token for development, signed with the stack's key; raises :class:`UserError` for a caller that none can be."""
    if not is_organisation(organisation):
        raise UserError(
            f"'{organisation}' cannot be an organisation; it has letters and digits of ASCII, '-' and '_', 64 at most."
        )
    if not is_user(user):
        raise UserError("A user is one line of text, 255 bytes at most; name another.")
    if not 0 < ttl_s <= TTL_MAX_S:
        raise UserError(f"A token lasts 1 to {TTL_MAX_S} seconds; choose a --ttl between them.")
    now = datetime.now(UTC)
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": user,
        organisation_claim: organisation,
        scopes_claim: " ".join(scopes),
        "iat": now,
        "exp": now + timedelta(seconds=ttl_s),
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def _refused(message: str) -> GatewayError:
    return GatewayError(ErrorKind.unauthenticated, message)
