"""The parameters in a request's address."""

from __future__ import annotations

import re
from collections.abc import Mapping

from plinth.embedded.errors import ApiError

_VALUES = {
    "wait": re.compile("true|false"),
    "ordering": re.compile("weak|medium|strong"),
    "timeout": re.compile("[0-9]{1,18}"),
    "consistency": re.compile("[0-9]{1,18}|majority|quorum|all"),
}


def check_parameters(given: Mapping[str, str]) -> None:
    """Refuse a value that is none. One node that does each request at once has done what all of them ask for."""
    for name, pattern in _VALUES.items():
        if name in given and not pattern.fullmatch(given[name]):
            raise ApiError(400, f"Deserialize error in query parameters: {name} cannot be {given[name]!r}")
