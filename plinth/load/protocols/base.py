"""Queries encoded before a run: a list of 768 floats costs a millisecond of JSON, and not less as a message."""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from plinth.load.workload import QUERIES, Ask

Request = TypeVar("Request")


class EncodedAhead(ABC, Generic[Request]):
    """Operations on one kind of wire; a query is the same each time, everything else is encoded when it is sent."""

    def __init__(self) -> None:
        self._encoded: dict[tuple[str, int], Request] = {}

    def encode_ahead(self, asks: Iterable[Ask]) -> None:
        """Encode queries before the run."""
        for ask in asks:
            self._encoded[ask.name, ask.row] = self.encode(ask)

    def request(self, ask: Ask) -> Request:
        """An operation as it is sent."""
        known = self._encoded.get((ask.name, ask.row)) if ask.name in QUERIES else None
        return self.encode(ask) if known is None else known

    @abstractmethod
    def encode(self, ask: Ask) -> Request:
        """An operation, encoded."""


def unlike_others() -> Iterator[int]:
    """Score thresholds that no point of a cosine misses, none twice in a run; whole numbers that 32 bits hold."""
    return itertools.count(-2 - secrets.randbelow(2**23), -1)
