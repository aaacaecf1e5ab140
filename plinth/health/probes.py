"""A readiness probe of one service, used while deploying and by `plinth status`."""

from __future__ import annotations

import ssl
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal
from urllib.parse import quote

import httpx

from plinth.errors import UserError
from plinth.system.http_client import client_for
from plinth.system.tls import Pair, trusting

CLIENTS = {"postgres": "psycopg", "redis": "redis"}
# httpx imports it with its first client.
HTTP_CLIENT = "httpcore"
NEO4J_PATH = "/db/neo4j/tx/commit"


class ProbeFailed(Exception):
    """The service did not answer as expected; the message gives the reason, on one line and without a secret."""


@dataclass(frozen=True)
class Probe:
    """Address and method of a probe.

    ``http``: GET returns 200, as ``user`` or with a key. ``qdrant``: no collection is red. The other kinds log in and
    run a command.
    """

    kind: Literal["http", "qdrant", "postgres", "redis", "neo4j"]
    host: str
    port: int
    path: str = "/"
    user: str = ""
    tls: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    def load_client(self) -> None:
        """Import the client library: that takes longer than a response, and must not count as latency."""
        import_module(CLIENTS.get(self.kind, HTTP_CLIENT))

    def run(
        self, password: str | None, *, timeout_s: float, ca_cert: str | None = None, client: Pair | None = None
    ) -> None:
        """Probe once; raises :class:`ProbeFailed`. Without a user ``password`` is an API key; ``ca_cert`` is PEM."""
        if self.kind == "http":
            self._http(password, timeout_s, trusting(ca_cert, client) if self.tls else None)
        elif self.kind == "qdrant":
            self._qdrant(password, timeout_s, trusting(ca_cert, client) if self.tls else None)
        elif self.kind == "postgres":
            self._postgres(password, timeout_s)
        elif self.kind == "neo4j":
            self._neo4j(password or "", timeout_s)
        else:
            self._redis(password, timeout_s)

    def _http(self, password: str | None, timeout_s: float, context: ssl.SSLContext | None) -> None:
        url = self._url("https" if self.tls else "http", self.path)
        login = (self.user, password) if self.user and password else None
        headers = {"api-key": password} if password and not self.user else {}
        try:
            with (
                client_for(url, timeout=timeout_s, verify=context) as client,
                client.stream("GET", url, headers=headers, auth=login) as answer,
            ):
                words = next(answer.iter_bytes(200), b"").decode(errors="replace")
        except (httpx.HTTPError, UserError) as error:
            raise ProbeFailed(f"{url}: {_one_line(error) or type(error).__name__}") from error
        if answer.status_code != 200:
            raise ProbeFailed(f"{url} answered {answer.status_code}: {_one_line(words)}")

    def _qdrant(self, key: str | None, timeout_s: float, context: ssl.SSLContext | None) -> None:
        """List the collections, which proves the key, and fail where one of them is red."""
        url = self._url("https" if self.tls else "http", "/collections")
        broken = []
        try:
            with client_for(url, timeout=timeout_s, verify=context, headers={"api-key": key} if key else {}) as client:
                answer = client.get(url)
                if answer.status_code != 200:
                    raise ProbeFailed(f"{url} answered {answer.status_code}: {_one_line(answer.text[:200])}")
                for name in (entry["name"] for entry in answer.json()["result"]["collections"]):
                    described = client.get(f"{url}/{quote(name, safe='')}")
                    # A collection that was dropped in between is absent.
                    if described.status_code == 200 and described.json()["result"]["status"] == "red":
                        broken.append((name, described.json()["result"]["optimizer_status"]))
        except (httpx.HTTPError, UserError) as error:
            raise ProbeFailed(f"{url}: {_one_line(error) or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ProbeFailed(f"{url} answers something else than Qdrant does") from error
        if broken:
            name, why = broken[0]
            more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
            reason = why.get("error", "") if isinstance(why, dict) else ""
            raise ProbeFailed(f"collection '{name}' is red{more}: {_one_line(reason)[:200]}")

    def _postgres(self, password: str | None, timeout_s: float) -> None:
        import psycopg

        try:
            with psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user or "postgres",
                password=password,
                dbname="postgres",
                # libpq takes whole seconds, and reads 1 as 2.
                connect_timeout=max(2, round(timeout_s)),
            ) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise ProbeFailed(f"postgres at {self.host}:{self.port}: {_one_line(error)}") from error

    def _neo4j(self, password: str, timeout_s: float) -> None:
        url = self._url("http", NEO4J_PATH)
        body = {"statements": [{"statement": "RETURN 1"}]}
        try:
            with client_for(url, timeout=timeout_s) as client:
                answer = client.post(url, json=body, auth=(self.user or "neo4j", password))
            errors = answer.json()["errors"]
        except (httpx.HTTPError, UserError, ValueError, KeyError) as error:
            raise ProbeFailed(f"{url}: {_one_line(error) or type(error).__name__}") from error
        if errors:
            raise ProbeFailed(f"{url} answered {answer.status_code}: {_one_line(errors[0].get('message'))}")

    def _url(self, scheme: str, path: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{path}"

    def _redis(self, password: str | None, timeout_s: float) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis(
            host=self.host,
            port=self.port,
            password=password,
            ssl=self.tls,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # The caller counts the attempts; the library's own retries would come on top of them, with pauses.
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()
        except redis.RedisError as error:
            raise ProbeFailed(f"redis at {self.host}:{self.port}: {_one_line(error)}") from error
        finally:
            client.close()


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
