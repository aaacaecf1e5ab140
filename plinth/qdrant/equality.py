"""Whether a server has what a spec requires; its further values are its own defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from plinth.qdrant.payload_index import PayloadIndex

FLAGS = ("is_tenant", "is_principal", "on_disk")


def schema(index: PayloadIndex) -> dict[str, Any]:
    """Return an index in the form of `PUT /collections/{c}/index`."""
    return index.model_dump(exclude_none=True)


def same_index(index: PayloadIndex, found: Mapping[str, Any] | None) -> bool:
    """Return whether the server has the index; an unset flag is off."""
    if found is None:
        return False
    wanted = schema(index)
    if any(bool(found.get(flag)) != bool(wanted.get(flag)) for flag in FLAGS):
        return False
    return all(equal(found.get(key), value) for key, value in wanted.items() if key not in FLAGS)


def within(found: Any, wanted: Any) -> bool:
    """Return whether the server has all desired values; its further values are its defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(within(found.get(key), value) for key, value in wanted.items())
    return equal(found, wanted)


def equal(found: Any, wanted: Any) -> bool:
    """Return whether two values are the same to a server."""
    if isinstance(wanted, float) and isinstance(found, int | float):
        # The server keeps single precision.
        return math.isclose(found, wanted, rel_tol=1e-6)
    return bool(found == wanted)


def shown(index: Mapping[str, Any] | None) -> Any:
    """Return an index for a message: its parameters, or `absent`."""
    return dict(index) if index else "absent"
