"""A client that waits for its server: a restart of seconds must not end a migration of hours."""

from __future__ import annotations

from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from plinth.qdrant.client import RETRIED, Qdrant, QdrantError, QdrantUnreachable

# What only a server says. That nothing came in time is 408 too, and may be said of an address without one.
BUSY = RETRIED - {408}


class PatientQdrant(Qdrant):
    """Retries requests for ``patience_s`` seconds, with backoff, while the server is unreachable or busy.

    It does not retry before the first success: a wrong address is an error, not an outage, unless it answers that it is
    busy. Only for requests that may be repeated, as all of a migration's may.
    """

    def __init__(self, url: str, api_key: str | None, patience_s: float, ca_cert: str | None = None) -> None:
        super().__init__(url, api_key, ca_cert=ca_cert)
        self._patience_s, self._answered = patience_s, False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the `result` of a request; raises :class:`QdrantError` when the retries are exhausted."""
        tries = Retrying(
            retry=retry_if_exception(self._passing),
            stop=stop_after_delay(self._patience_s),
            wait=wait_exponential_jitter(multiplier=0.5, max=15),
            reraise=True,
        )
        result = tries(self._asked, method, path, body)
        self._answered = True
        return result

    def _asked(self, method: str, path: str, body: Any) -> Any:
        try:
            return super().call(method, path, body)
        except QdrantError as error:
            self._answered |= error.status in BUSY
            raise

    def _passing(self, error: BaseException) -> bool:
        passes = isinstance(error, QdrantUnreachable) or (isinstance(error, QdrantError) and error.status in RETRIED)
        return passes and self._answered
