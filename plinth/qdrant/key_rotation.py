"""Another API key for a cluster, without a moment in which two of its nodes refuse each other.

A node shows its own key to the others and takes two: its key, and one beside it. So the new key is first let in
everywhere, then shown everywhere, and only then the old one is let in nowhere. Each step goes from node to node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Keys(NamedTuple):
    """The key that a node shows and takes, and the one that it takes beside it."""

    key: str
    beside: str | None = None

    def takes(self, key: str) -> bool:
        """Whether a node with these lets somebody in who shows a key."""
        return key in (self.key, self.beside)


def steps(before: Keys, wanted: Keys) -> Sequence[Keys]:
    """The keys of all nodes after each step; the last are those that are wanted."""
    if before.takes(wanted.key) and wanted.takes(before.key):
        return [wanted]
    return [Keys(before.key, wanted.key), Keys(wanted.key, before.key), wanted]
