"""Rotation of a cluster's API key, without a moment in which two of its nodes refuse each other.

A node sends its own key to the others and accepts two: its key, and an alternate one. So the new key is first accepted
everywhere, then sent everywhere, and only then the old one is revoked everywhere. Each step goes from node to node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Keys(NamedTuple):
    """The key that a node sends and accepts, and the alternate one that it accepts."""

    key: str
    beside: str | None = None

    def takes(self, key: str) -> bool:
        """Return whether a node with these keys accepts a key."""
        return key in (self.key, self.beside)


def steps(before: Keys, wanted: Keys) -> Sequence[Keys]:
    """Return the keys of all nodes after each step; the last are the desired ones."""
    if before.takes(wanted.key) and wanted.takes(before.key):
        return [wanted]
    return [Keys(before.key, wanted.key), Keys(wanted.key, before.key), wanted]
