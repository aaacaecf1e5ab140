"""One question to one service: does it serve? Used while deploying and by `plinth status`."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Literal

import psycopg
import redis

from plinth.certificates import trusting

NEO4J_PATH = "/db/neo4j/tx/commit"


class ProbeFailed(Exception):
    """The service did not answer as it should; the message says how, on one line and without a secret."""


@dataclass(frozen=True)
class Probe:
    """Where and how to ask. ``http``: GET answers 200. The others: a login and a trivial command."""

    kind: Literal["http", "postgres", "redis", "neo4j"]
    host: str
    port: int
    path: str = "/"
    user: str = ""
    tls: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def run(self, password: str | None, *, timeout_s: float, ca_cert: str | None = None) -> None:
        """Ask once; raises :class:`ProbeFailed`. ``password`` is an API key for http, ``ca_cert`` who signed (PEM)."""
        if self.kind == "http":
            self._http(password, timeout_s, ca_cert)
        elif self.kind == "postgres":
            self._postgres(password, timeout_s)
        elif self.kind == "neo4j":
            self._neo4j(password or "", timeout_s)
        else:
            self._redis(password, timeout_s)

    def _http(self, key: str | None, timeout_s: float, ca_cert: str | None) -> None:
        url = f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{self.path}"
        connection = (
            HTTPSConnection(self.host, self.port, timeout=timeout_s, context=trusting(ca_cert))
            if self.tls
            else HTTPConnection(self.host, self.port, timeout=timeout_s)
        )
        try:
            connection.request("GET", self.path, headers={"api-key": key} if key else {})
            answer = connection.getresponse()
            words = answer.read(200).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise ProbeFailed(f"{url}: {_one_line(error) or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise ProbeFailed(f"{url} answered {answer.status}: {_one_line(words)}")

    def _postgres(self, password: str | None, timeout_s: float) -> None:
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
        url = f"http://{self.host}:{self.port}{NEO4J_PATH}"
        login = b64encode(f"{self.user or 'neo4j'}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        connection = HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request("POST", NEO4J_PATH, '{"statements": [{"statement": "RETURN 1"}]}', headers)
            answer = connection.getresponse()
            errors = json.loads(answer.read())["errors"]
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise ProbeFailed(f"{url}: {_one_line(error) or type(error).__name__}") from error
        finally:
            connection.close()
        if errors:
            raise ProbeFailed(f"{url} answered {answer.status}: {_one_line(errors[0].get('message'))}")

    def _redis(self, password: str | None, timeout_s: float) -> None:
        client = redis.Redis(
            host=self.host,
            port=self.port,
            password=password,
            ssl=self.tls,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        try:
            client.ping()
        except redis.RedisError as error:
            raise ProbeFailed(f"redis at {self.host}:{self.port}: {_one_line(error)}") from error
        finally:
            client.close()


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
