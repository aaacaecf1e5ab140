"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

Why = str | Callable[[], str]


def wait_for(holds: Callable[[], object], why: Why = "it did not come", seconds: float = 120) -> None:
    """Until it holds; ``why`` says what there is instead when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, why if isinstance(why, str) else why()
        time.sleep(0.2)
