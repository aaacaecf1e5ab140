"""Embeddings of an OpenAI-compatible API: POST {url}/embeddings.

No text and no answer of the provider is in a log or an error: what it refuses it may well repeat.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import httpx
import orjson
from pydantic import BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from plinth.errors import UserError
from plinth.gateway.errors import ErrorKind, GatewayError, timed_out
from plinth.gateway.providers.circuit_breaker import CircuitBreaker
from plinth.gateway.providers.config import HttpProvider
from plinth.system.http_client import async_client_for
from plinth.system.tls import trusting

# Texts of one request (S2-05).
BATCH_MAX = 50
RETRY_AFTER_MAX_S = 3600.0
# A number of an answer as text, with what stands around it.
_BYTES_PER_VALUE = 40
_ANSWER_BYTES = 1024 * 1024
_TRANSIENT = frozenset({ErrorKind.unavailable, ErrorKind.resource_exhausted})
_UNAVAILABLE = "the embedding provider is unavailable"
_backoff = wait_random_exponential(multiplier=0.5, max=20)
log = logging.getLogger("plinth.gateway.providers.http")


class _CircuitOpenError(GatewayError):
    """Nothing was sent. It is not waited for here: whoever asks has something better to do."""


class _Embedding(BaseModel):
    index: int
    embedding: list[Annotated[float, Field(allow_inf_nan=False)]]


class _Answer(BaseModel):
    data: list[_Embedding]


class HttpEmbedder:
    """A client of the API, with its circuit breaker. It reads its key from the file again for each request."""

    def __init__(self, provider: HttpProvider) -> None:
        self.model = provider.model
        self.version = provider.version
        self.dimension = provider.dimension
        self._provider = provider
        self._breaker = CircuitBreaker(provider.failures_to_open, provider.open_s)
        verify = trusting(_text(provider.ca_file, "CA certificate")) if provider.ca_file else None
        self._client = async_client_for(provider.url, verify=verify, timeout=provider.timeout_s, follow_redirects=False)
        self._headers()

    async def embed(self, texts: Sequence[str], within_s: float) -> list[list[float]]:
        """A vector for each text, in requests of 50 texts at most."""
        deadline = time.monotonic() + within_s
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH_MAX):
            vectors += await self._batch(list(texts[start : start + BATCH_MAX]), deadline)
        return vectors

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def _batch(self, texts: list[str], deadline: float) -> list[list[float]]:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._provider.attempts) | stop_before_delay(max(0.0, deadline - time.monotonic())),
            wait=_wait,
            retry=retry_if_exception(_is_transient),
            reraise=True,
        )
        vectors: list[list[float]] = await retrying(self._attempt, texts, deadline)
        return vectors

    async def _attempt(self, texts: list[str], deadline: float) -> list[list[float]]:
        wait_s = self._breaker.admit()
        if wait_s > 0:
            raise _CircuitOpenError(ErrorKind.unavailable, _UNAVAILABLE, retry_after_s=wait_s)
        try:
            vectors = await self._send(texts, deadline)
        except GatewayError as error:
            # A provider that refuses, or asks for patience, is there.
            if error.kind in (ErrorKind.unavailable, ErrorKind.deadline_exceeded):
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return vectors

    async def _send(self, texts: list[str], deadline: float) -> list[list[float]]:
        remaining_s = deadline - time.monotonic()
        within_s = min(self._provider.timeout_s, remaining_s)
        request = {"model": self.model, "input": texts, "encoding_format": "float"}
        try:
            async with (
                asyncio.timeout(within_s),
                self._client.stream(
                    "POST", "/embeddings", content=orjson.dumps(request), headers=self._headers()
                ) as answer,
            ):
                self._check_status(answer)
                return self._vectors(await self._content(answer), len(texts))
        except TimeoutError:
            log.warning("the embedding provider did not answer within %.1f s", within_s)
            # Where the caller's own time is over, no other attempt is of use.
            raise (timed_out() if within_s == remaining_s else _unavailable()) from None
        except httpx.HTTPError as error:
            log.warning("the embedding provider does not answer: %s", type(error).__name__)
            raise _unavailable() from None
        except UserError as error:
            log.error("%s", error)
            raise _unavailable() from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        path = self._provider.api_key_file
        if path is not None:
            key = _text(path, "key").strip()
            if not key.isascii() or not key.isprintable():
                raise UserError(f"The embedding provider's key, {path}, is not one line of ASCII; correct the file.")
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _check_status(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status == HTTPStatus.OK:
            return
        log.warning("the embedding provider answered %s", status)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise GatewayError(
                ErrorKind.resource_exhausted,
                "the embedding provider refuses more requests",
                retry_after_s=_retry_after_s(answer.headers.get("Retry-After")),
            )
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise GatewayError(ErrorKind.invalid_argument, "the embedding provider refuses the texts")
        raise _unavailable(_retry_after_s(answer.headers.get("Retry-After")))

    async def _content(self, answer: httpx.Response) -> bytes:
        limit = _ANSWER_BYTES + BATCH_MAX * self.dimension * _BYTES_PER_VALUE
        content = bytearray()
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > limit:
                log.warning("the embedding provider's answer is longer than %s bytes", limit)
                raise _unavailable()
        return bytes(content)

    def _vectors(self, content: bytes, count: int) -> list[list[float]]:
        try:
            entries = _Answer.model_validate_json(content).data
        except ValidationError:
            log.warning("the embedding provider's answer is not that of /embeddings")
            raise _unavailable() from None
        vectors = {entry.index: entry.embedding for entry in entries}
        if len(entries) != count or vectors.keys() != set(range(count)):
            log.warning("the embedding provider gave %s vectors for %s texts", len(entries), count)
            raise _unavailable()
        if any(len(vector) != self.dimension for vector in vectors.values()):
            log.warning("the embedding provider's vectors do not have %s values", self.dimension)
            raise GatewayError(
                ErrorKind.invalid_argument, "the embedding provider's vectors have another dimension than is configured"
            )
        return [vectors[index] for index in range(count)]


def _wait(state: RetryCallState) -> float:
    """Exponential with jitter, and no less than the provider asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, GatewayError) else None
    return max(_backoff(state), asked_s or 0.0)


def _retry_after_s(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which has them or a date; None where it has neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
            seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if math.isfinite(seconds) else None


def _unavailable(retry_after_s: float | None = None) -> GatewayError:
    return GatewayError(ErrorKind.unavailable, _UNAVAILABLE, retry_after_s=retry_after_s)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, GatewayError) and error.kind in _TRANSIENT and not isinstance(error, _CircuitOpenError)


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"The embedding provider's {name}, {path}, cannot be read ({error}); correct the file."
        ) from None
