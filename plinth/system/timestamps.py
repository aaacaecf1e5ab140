"""Recorded times, checked against the clock: a time ahead of it was recorded by a clock that was wrong."""

from __future__ import annotations

from datetime import UTC, datetime

# Two machines differ by less, and a clock that is set back by less is no fault.
SKEW_S = 300.0


def past(moment: float | None, now: float) -> float | None:
    """Return the time (Unix seconds); None for None, and for a time that is ahead of the clock."""
    return moment if moment is not None and moment <= now + SKEW_S else None


def date(moment: float) -> str:
    """Return the time as text, in UTC; a time out of range as a number of seconds."""
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {moment:g}"
