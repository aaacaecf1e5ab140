"""How long to wait for other work: another run, a restore into the same stores, a repository's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Longer than the half hour after which restic regards the lock of a dead machine as stale.
PATIENCE_S = 3600.0
# The first and the longest pause between two attempts: each start of restic derives its key again.
FIRST_S, LONGEST_S, GROWS = 0.5, 15.0, 1.5


@dataclass(frozen=True)
class Patience:
    """A time limit in seconds; ``say`` reports a line that names who is waited for."""

    seconds: float
    say: Callable[[str], None]

    def moments(self, holder: Callable[[], str]) -> Iterator[None]:
        """Yield when to try: at once, then with longer and longer pauses until the time is over."""
        end = time.monotonic() + self.seconds
        yield
        if self.seconds > 0:
            self.say(f"waiting for {holder()}, {self.seconds / 60:.0f} minutes at most")
        pause = FIRST_S
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * GROWS, LONGEST_S)
            yield
