"""Tokens: who is let in, and who is not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from plinth.errors import UserError
from plinth.gateway import tokens
from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.tokens import PublicKeys, SharedKey, TokenVerifier, issue_token

SECRET = "a-secret-of-the-stack-of-32-bytes-at-least"
RSA, OTHER_RSA = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    content = {
        "iss": "plinth",
        "aud": "plinth-gateway",
        "sub": "ann",
        "org_id": "acme",
        "scope": "read",
        "exp": now + 60,
    }
    return {key: value for key, value in (content | changes).items() if value is not None}


def hs256(content: Mapping[str, Any], secret: str = SECRET, **header: Any) -> str:
    return jwt.encode(dict(content), secret, algorithm="HS256", headers=header)


def caller_of(verifier: TokenVerifier, token: str) -> Caller:
    return asyncio.run(verifier.caller(f"Bearer {token}"))


def refused(verifier: TokenVerifier, header: str | None) -> str:
    with pytest.raises(GatewayError) as error:
        asyncio.run(verifier.caller(header))
    assert error.value.kind is ErrorKind.unauthenticated
    return error.value.message


def shared() -> TokenVerifier:
    return TokenVerifier(SharedKey(SECRET))


def test_a_token_of_the_stack_says_who_calls() -> None:
    token = issue_token(SECRET, "acme", "ann", scopes=[Scope.read, Scope.write])
    assert caller_of(shared(), token) == Caller("acme", "ann", frozenset({Scope.read, Scope.write}))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("read", {"read"}), ("read write other", {"read", "write"}), (["admin"], {"admin"}), (None, set()), (7, set())],
)
def test_scopes_are_words_or_a_list(scope: Any, expected: set[str]) -> None:
    assert {str(each) for each in caller_of(shared(), hs256(claims(scope=scope))).scopes} == expected


def test_a_clock_may_be_half_a_minute_off() -> None:
    now = time.time()
    assert caller_of(shared(), hs256(claims(exp=int(now) - 20)))
    assert caller_of(shared(), hs256(claims(nbf=int(now) + 20)))
    assert refused(shared(), f"Bearer {hs256(claims(exp=int(now) - 40))}") == "the token has expired"
    assert refused(shared(), f"Bearer {hs256(claims(nbf=int(now) + 60))}")


def without_signature(content: Mapping[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, content))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


BAD = {
    "another key": lambda: hs256(claims(), "another-secret-of-32-bytes-and-even-more"),
    "no signature": lambda: without_signature(claims()),
    "another algorithm": lambda: jwt.encode(claims(), SECRET * 2, algorithm="HS512"),
    "a public key's": lambda: jwt.encode(claims(), RSA, algorithm="RS256"),
    "another audience": lambda: hs256(claims(aud="other")),
    "no audience": lambda: hs256(claims(aud=None)),
    "another issuer": lambda: hs256(claims(iss="other")),
    "no end": lambda: hs256(claims(exp=None)),
    "an end that is none": lambda: hs256(claims(exp="soon")),
    "no user": lambda: hs256(claims(sub=None)),
    "a user of two lines": lambda: hs256(claims(sub="a\nb")),
    "a long user": lambda: hs256(claims(sub="a" * 256)),
    "no organisation": lambda: hs256(claims(org_id=None)),
    "an organisation with a slash": lambda: hs256(claims(org_id="a/b")),
    "an organisation of another alphabet": lambda: hs256(claims(org_id="\u0430cme")),
    "two organisations": lambda: hs256(claims(org_id=["acme", "other"])),
    "an empty organisation": lambda: hs256(claims(org_id="")),
    "text": lambda: "x.y.z",
    "nothing": lambda: "",
    "too much": lambda: "x" * 10_000,
    "signs that are no text": lambda: "\udcff.\udcff.\udcff",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_token_that_proves_nobody_is_refused(make: Any) -> None:
    message = refused(shared(), f"Bearer {make()}")
    assert SECRET not in message


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic YTpi", "Token x", "bearer"])
def test_a_request_without_a_token_is_refused(header: str | None) -> None:
    assert "Authorization: Bearer" in refused(shared(), header)


def jwks(*keys: tuple[str | None, Any]) -> dict[str, Any]:
    content = []
    for kid, key in keys:
        kind = (
            jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
        )
        document = json.loads(kind.to_jwk(key.public_key()))
        content.append(document | ({"kid": kid} if kid else {}))
    return {"keys": content}


def test_public_keys_of_a_file_verify_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(("r", RSA), ("e", EC))))
    verifier = TokenVerifier(PublicKeys(str(path)))
    assert caller_of(verifier, jwt.encode(claims(), RSA, "RS256", {"kid": "r"})).organisation == "acme"
    verifier = TokenVerifier(PublicKeys(str(path)))
    assert caller_of(verifier, jwt.encode(claims(), EC, "ES256", {"kid": "e"})).organisation == "acme"


@pytest.mark.parametrize(
    "token",
    [
        lambda: jwt.encode(claims(), OTHER_RSA, "RS256", {"kid": "r"}),
        lambda: jwt.encode(claims(), RSA, "RS256", {"kid": "unknown"}),
        lambda: jwt.encode(claims(), RSA, "RS384", {"kid": "r"}),
        # A public key is no secret: who knows it must not sign with it.
        lambda: _signed_with_public_key(),
        lambda: without_signature(claims()),
        lambda: hs256(claims(), kid="r"),
    ],
)
def test_public_keys_let_nobody_else_in(tmp_path: Path, token: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(("r", RSA))))
    refused(TokenVerifier(PublicKeys(str(path))), f"Bearer {token()}")


def _signed_with_public_key() -> str:
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT", "kid": "r"}, claims())
    ]
    signature = hmac.new(public, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


class CountedKey(SharedKey):
    """A key that counts how often it verifies."""

    asked = 0

    async def key(self, kid: str | None) -> Any:
        self.asked += 1
        return await super().key(kid)


def test_a_token_is_verified_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    key = CountedKey(SECRET)
    verifier = TokenVerifier(key)
    first, second = (hs256(claims(sub=user)) for user in ("ann", "bob"))
    assert [caller_of(verifier, token).user for token in (first, first, second, first)] == ["ann", "ann", "bob", "ann"]
    assert key.asked == 2
    forged = hs256(claims(), "another-secret-of-32-bytes-at-least")
    assert refused(verifier, f"Bearer {forged}") == refused(verifier, f"Bearer {forged}")
    assert key.asked == 4
    monkeypatch.setattr(tokens, "VERIFIED_S", 0.0)
    verifier = TokenVerifier(key)
    assert [caller_of(verifier, first).user for _ in range(2)] == ["ann", "ann"]
    assert key.asked == 6


def test_a_token_that_was_verified_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VERIFIED_S", 600.0)
    verifier, token = shared(), hs256(claims(exp=int(time.time()) - 28))
    assert caller_of(verifier, token)
    # It had less than two seconds.
    time.sleep(2)
    assert refused(verifier, f"Bearer {token}") == "the token has expired"


def test_as_many_tokens_are_remembered_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VERIFIED_MAX", 3)
    key = CountedKey(SECRET)
    verifier = TokenVerifier(key)
    made = [hs256(claims(sub=f"user{n}")) for n in range(4)]
    for token in (*made, made[0]):
        assert caller_of(verifier, token)
    assert key.asked == 5


class KeyServer:
    """Serves a JWKS that changes, and counts how often it is asked."""

    def __init__(self) -> None:
        outer = self
        self.document, self.requests, self.status = jwks(("1", RSA)), 0, 200

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                body = json.dumps(outer.document).encode()
                self.send_response(outer.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    yield server
    server.stop()


def test_a_new_key_is_fetched_when_a_token_names_it(key_server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REFETCH_S", 0.0)

    async def work() -> None:
        verifier = TokenVerifier(PublicKeys(key_server.url))
        first = f"Bearer {jwt.encode(claims(), RSA, 'RS256', {'kid': '1'})}"
        second = f"Bearer {jwt.encode(claims(), OTHER_RSA, 'RS256', {'kid': '2'})}"
        await verifier.caller(first)
        with pytest.raises(GatewayError):
            await verifier.caller(second)
        key_server.document = jwks(("1", RSA), ("2", OTHER_RSA))
        assert (await verifier.caller(second)).organisation == "acme"
        await verifier.caller(first)
        # What is away for a while changes nothing for keys that are known.
        key_server.status = 500
        await verifier.caller(second)
        with pytest.raises(GatewayError):
            await verifier.caller(f"Bearer {jwt.encode(claims(), RSA, 'RS256', {'kid': '3'})}")

    asyncio.run(work())


def test_unknown_keys_do_not_flood_who_has_them(key_server: KeyServer) -> None:
    async def work() -> None:
        verifier = TokenVerifier(PublicKeys(key_server.url))
        for kid in range(50):
            with pytest.raises(GatewayError):
                await verifier.caller(f"Bearer {jwt.encode(claims(), RSA, 'RS256', {'kid': f'x{kid}'})}")

    asyncio.run(work())
    assert key_server.requests <= 2


def test_a_short_secret_is_no_key() -> None:
    with pytest.raises(UserError, match="32 bytes"):
        SharedKey("short")


@pytest.mark.parametrize("wrong", [{"organisation": "a/b"}, {"user": ""}, {"ttl_s": 0}, {"ttl_s": 10**9}])
def test_a_token_for_nobody_is_not_issued(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        issue_token(SECRET, **({"organisation": "acme", "user": "ann"} | wrong))
