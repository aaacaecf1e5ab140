"""A connection to one Docker engine over its API: requests, and their failures as sentences."""

from __future__ import annotations

import getpass
import grp
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from plinth.errors import UserError
from plinth.system.http_client import client_for
from plinth.targets.docker.address import SETTING, Address, engine_address

# What Go's server answers in the clear on a port that speaks TLS.
ASKS_FOR_TLS = "HTTP request to an HTTPS server"


class Connection:
    """Asks one engine; raises :class:`UserError` where it does not do as asked."""

    def __init__(self, host: str | None = None, timeout_s: float = 30.0) -> None:
        """``host`` is `unix://PATH` or `tcp://HOST:PORT`; the docker client's own choice when absent."""
        self.address = engine_address(host, os.environ, Path.home())
        self.host = self.address.host
        scheme, _, where = self.host.partition("://")
        if scheme == "unix":
            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=where), base_url="http://docker", timeout=timeout_s
            )
        elif scheme in ("tcp", "http", "https"):
            context = _tls(self.address)
            url = f"{'https' if context or scheme == 'https' else 'http'}://{where}"
            self._http = client_for(url, verify=context, timeout=timeout_s)
        else:
            raise UserError(
                f"{self.address.source} names the Docker engine {self.host}, which Plinth cannot reach; name a unix:// "
                f"or tcp:// address with {SETTING}, such as that of a forwarded socket."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def is_here(self) -> bool:
        """Whether the engine runs on this machine, so that its ports are this machine's."""
        return self.host.startswith("unix://")

    def version(self) -> str:
        """Return the engine's version; the cheapest proof that it answers."""
        return str(self._json("GET", "/version")["Version"])

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the engine's response to a request; None where it is empty."""
        answer = self._ask(method, path, body=body)
        return answer.json() if answer is not None and answer.content else None

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """Yield a response that is read as it comes; the caller handles a missing object (404)."""
        with self._stream(method, path, **request) as answer:
            if answer.is_error and answer.status_code != httpx.codes.NOT_FOUND:
                raise self._refusal(method, path, answer)
            yield answer

    def _json(self, method: str, path: str, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        answer = self._ask(method, path, params=params, body=body)
        return answer.json() if answer is not None else None

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        missing: bool = False,
    ) -> httpx.Response | None:
        """Return the response to a request with a JSON body; None where ``missing`` allows a missing object."""
        with self._sentences():
            answer = self._http.request(method, path, params=params, json=body)
        if missing and answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise self._refusal(method, path, answer)
        return answer

    @contextmanager
    def _stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        # Pulling and packing take as long as they take.
        with self._sentences(), self._http.stream(method, path, timeout=None, **request) as answer:
            yield answer

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            if _is_denied(error):
                raise _closed_socket(self.host.removeprefix("unix://")) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"The Docker engine at {self.host} does not answer ({reason}); {self.address.source} names it. Start "
                f"it (`systemctl start docker`), or name another with {SETTING}.",
                exit_code=1,
            ) from error

    def _refusal(self, method: str, path: str, answer: httpx.Response) -> UserError:
        answer.read()
        if self._http.base_url.scheme == "http" and ASKS_FOR_TLS in answer.text:
            return UserError(
                f"The Docker engine at {self.host} asks for TLS; {self.address.source} names it. Set "
                "DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to a directory of ca.pem, cert.pem and key.pem, or use a "
                "docker context that has them."
            )
        return UserError(
            f"The Docker engine at {self.host} answered {answer.status_code} to {method} {path}: {reason_of(answer)}"
        )


def reason_of(answer: httpx.Response) -> str:
    """Return the engine's own reason for a refusal."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]


def json_filter(**filters: list[str]) -> str:
    """Return filters in the engine's format."""
    return json.dumps(filters)


def _tls(address: Address) -> ssl.SSLContext | None:
    """Trust and identity from a directory of certificates, as the docker client keeps them."""
    where = address.certificates
    if where is None:
        return None
    try:
        # All three: Pulumi's plugin takes no fewer.
        context = ssl.create_default_context(cafile=str(where / "ca.pem"))
        context.load_cert_chain(where / "cert.pem", where / "key.pem")
    except OSError as error:
        raise UserError(
            f"The certificates in {where} that {address.source} names cannot be used ({error}); put ca.pem, cert.pem "
            "and key.pem there."
        ) from error
    return context


def _is_denied(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _closed_socket(path: str) -> UserError:
    """Return the error for a running engine whose socket this account may not use."""
    try:
        group = grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        group = "docker"
    account = getpass.getuser()
    return UserError(
        f"The account {account} may not use the Docker engine's socket {path}: it is open to the group {group}. Add "
        f"the account (`sudo usermod -aG {group} {account}`) and log in again, or name another engine with {SETTING}.",
        exit_code=1,
    )
