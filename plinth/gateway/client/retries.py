"""When a call is tried again, and when a job is asked for: exponential backoff with jitter, within a time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from plinth.gateway.client.errors import ApiError
from plinth.gateway.errors import ErrorKind

_TRANSIENT = frozenset({ErrorKind.unavailable, ErrorKind.resource_exhausted, ErrorKind.deadline_exceeded})
FIRST_POLL_S = 0.1
LAST_POLL_S = 2.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call is tried, and the pauses between: random below ``backoff_s``, twice that, and so on.

    Where the gateway says when to come again, no try is earlier. ``attempts`` of 1 tries nothing again.
    """

    attempts: int = 4
    backoff_s: float = 0.2
    backoff_max_s: float = 5.0

    def options(self, *, repeatable: bool, deadline: float) -> dict[str, Any]:
        """The options of tenacity for one call, which ends at ``deadline`` of the monotonic clock.

        A call that is not ``repeatable`` is tried again only where the gateway has surely not done it.
        """
        backoff = wait_random_exponential(multiplier=self.backoff_s, max=self.backoff_max_s)

        def is_transient(error: BaseException) -> bool:
            return (
                isinstance(error, ApiError)
                and error.kind in _TRANSIENT
                and not error.too_large
                and (repeatable or not error.may_be_done)
            )

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_s = error.retry_after_s if isinstance(error, ApiError) else None
            return max(backoff(state), asked_s or 0.0)

        def too_late(state: RetryCallState) -> bool:
            return time.monotonic() + state.upcoming_sleep >= deadline

        attempts = stop_after_attempt(self.attempts)
        return {
            "retry": retry_if_exception(is_transient),
            "wait": wait,
            "stop": lambda state: attempts(state) or too_late(state),
            "reraise": True,
        }


def polls(job_id: str, timeout_s: float) -> Iterator[tuple[float, float]]:
    """For each look at a job the seconds that are left, and those to pause after it; raises TimeoutError at the end."""
    deadline, pause_s = time.monotonic() + timeout_s, FIRST_POLL_S
    while (remaining_s := deadline - time.monotonic()) > 0:
        # Callers who began together do not ask together.
        yield remaining_s, min(remaining_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        pause_s = min(LAST_POLL_S, 1.5 * pause_s)
    raise TimeoutError(f"job {job_id} did not end within {timeout_s:g} s; it goes on, and can be waited for again")
