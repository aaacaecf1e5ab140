"""How long whoever else is at work is waited for: another run, a restore into the same stores, a repository's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Longer than the half hour after which restic takes the lock of a machine that is gone for nobody's.
PATIENCE_S = 3600.0
# Between two tries, the first and the longest: each start of restic derives its key anew.
FIRST_S, LONGEST_S, GROWS = 0.5, 15.0, 1.5


@dataclass(frozen=True)
class Patience:
    """So many seconds; ``say`` takes one line that names who is waited for."""

    seconds: float
    say: Callable[[str], None]

    def moments(self, holder: Callable[[], str]) -> Iterator[None]:
        """When to try: at once, then more and more seldom until the time is over."""
        end = time.monotonic() + self.seconds
        yield
        if self.seconds > 0:
            self.say(f"waiting for {holder()}, {self.seconds / 60:.0f} minutes at most")
        pause = FIRST_S
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * GROWS, LONGEST_S)
            yield
