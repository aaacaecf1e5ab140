"""Qdrant's REST API over httpx: one place for retries and for turning failures into messages."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx
import orjson
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from plinth.errors import UserError
from plinth.system.http_client import client_for, url_path
from plinth.system.tls import trusting

__all__ = [
    "Qdrant",
    "QdrantDenied",
    "QdrantError",
    "QdrantUnreachable",
    "collection_path",
]

# 408, 429 and 5xx may pass by themselves; upserts, deletes and reads can be sent again (qdrant.md section 8).
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


def collection_path(name: str) -> str:
    """Return the path of a collection; raises :class:`QdrantError` for a name that no address can hold."""
    try:
        return url_path("collections", name)
    except UserError as error:
        raise QdrantError(str(error)) from error


class QdrantError(UserError):
    """The server answered with an error; ``status`` is the HTTP code."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message, exit_code=1)
        self.status = status


class QdrantUnreachable(QdrantError):
    """The server's address did not answer."""


class QdrantDenied(QdrantError):
    """The key is missing, wrong or lacks the permission."""


class _Passing(Exception):
    """A transient failure, worth a retry."""

    def __init__(self, error: QdrantError) -> None:
        super().__init__(str(error))
        self.error = error


class Qdrant:
    """A connection to one server. ``timeout_s`` is for a whole request, in seconds (S3-04: 30).

    ``ca_cert`` is the CA certificate (PEM) that verifies the server; the system trust store without it.
    """

    def __init__(
        self, url: str, api_key: str | None = None, timeout_s: float = 30.0, ca_cert: str | None = None
    ) -> None:
        self.url = url.rstrip("/")
        # Compressed answers come in chunks that wait 40 ms for a delayed acknowledgement (docs/load.md).
        headers = {"accept-encoding": "identity"} | ({"api-key": api_key} if api_key else {})
        verify = trusting(ca_cert) if self.url.startswith("https") else None
        self._http = client_for(self.url, headers=headers, timeout=timeout_s, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the `result` of a request; raises :class:`QdrantError`. A ``body`` of bytes is JSON already.

        Transient failures are tried three times with backoff, except where a second request would do the work twice.
        """
        try:
            return self._tried(method, path, body)
        except _Passing as passing:
            raise passing.error from None

    def collection(self, name: str) -> dict[str, Any] | None:
        """Return the server's description of a collection, or None when it does not exist."""
        try:
            found: dict[str, Any] = self.call("GET", collection_path(name))
        except QdrantError as error:
            if error.status == 404:
                return None
            raise
        return found

    def banner(self) -> str:
        """Return the server's title and version at `/`; a real server and the embedded one differ in the title."""
        try:
            answer = self._http.get("/").json()
            return f"{answer['title']} {answer['version']}"
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise QdrantUnreachable(
                f"Nothing at {self.url} answers as Qdrant does ({' '.join(str(error).split())}); is it up?"
            ) from error

    def metrics(self) -> str:
        """Return the page of `/metrics`; raises :class:`QdrantError`."""
        try:
            answer = self._http.get("/metrics")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise self._refusal("GET", "/metrics", answer)
        return answer.text

    def collections(self) -> list[str]:
        """Return the names of all physical collections."""
        return sorted(entry["name"] for entry in self.call("GET", "/collections")["collections"])

    def aliases(self) -> dict[str, str]:
        """Return every alias and the collection it points to."""
        return {entry["alias_name"]: entry["collection_name"] for entry in self.call("GET", "/aliases")["aliases"]}

    @retry(
        retry=retry_if_exception_type(_Passing),
        stop=stop_after_attempt(3),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        reraise=True,
    )
    def _tried(self, method: str, path: str, body: Any) -> Any:
        try:
            if isinstance(body, bytes):
                answer = self._http.request(method, path, content=body, headers={"content-type": "application/json"})
            else:
                answer = self._http.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise _Passing(self._unreachable(error)) from error
        except httpx.TimeoutException as error:
            late = QdrantError(
                f"Qdrant at {self.url} did not answer {method} {path} in time; see its load in `plinth status`.", 408
            )
            raise _Passing(late) if _repeatable(method, path) else late from error
        except httpx.HTTPError as error:
            lost = self._unreachable(error)
            raise _Passing(lost) if _repeatable(method, path) else lost from error
        if answer.is_success:
            return orjson.loads(answer.content)["result"]
        refusal = self._refusal(method, path, answer)
        passing = answer.status_code in RETRIED and _repeatable(method, path)
        raise _Passing(refusal) if passing else refusal

    def _unreachable(self, error: httpx.HTTPError) -> QdrantUnreachable:
        return QdrantUnreachable(
            f"Qdrant at {self.url} cannot be reached ({' '.join(str(error).split())}); is it up? See `plinth status`."
        )

    def _refusal(self, method: str, path: str, answer: httpx.Response) -> QdrantError:
        if answer.status_code in (401, 403):
            return QdrantDenied(
                f"Qdrant at {self.url} refuses the API key for {method} {path} ({answer.status_code}); "
                "take it from `plinth outputs ENV --show-secrets`.",
                answer.status_code,
            )
        try:
            words = answer.json()["status"]["error"]
        except (ValueError, KeyError, TypeError):
            words = answer.text[:300]
        return QdrantError(
            f"Qdrant at {self.url} answered {answer.status_code} to {method} {path}: {words}", answer.status_code
        )


def _repeatable(method: str, path: str) -> bool:
    # A repeated request creates a second snapshot; writes of points, indexes and aliases are idempotent.
    return not (method == "POST" and path.partition("?")[0].endswith("/snapshots"))
