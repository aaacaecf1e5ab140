"""The id that a request is known by, in answers, the audit log and the log of errors."""

from __future__ import annotations

import re
import uuid

HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def request_id_of(given: str | None) -> str:
    """The caller's, where it is one; else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
