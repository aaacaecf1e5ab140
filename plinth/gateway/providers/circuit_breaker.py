"""A circuit breaker: after failures in a row nothing is sent for a while, then one request tries."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed, open or half-open. ``clock`` counts seconds and never goes back."""

    def __init__(self, failures_to_open: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None

    def admit(self) -> float:
        """0 where a request may be sent, else the seconds until one may.

        While it is half-open one request passes, and the others wait for what becomes of it, as long as it was open.
        """
        if self._open_until is None:
            return 0.0
        now = self._clock()
        if now < self._open_until:
            return self._open_until - now
        self._open_until = now + self._open_s
        return 0.0

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0
        self._open_until = None

    def failed(self) -> None:
        """The server did not answer, or with a fault of its own."""
        self._failures += 1
        if self._failures >= self._failures_to_open:
            self._open_until = self._clock() + self._open_s
