"""Errors with Qdrant's HTTP codes."""

from __future__ import annotations

import logging
from uuid import uuid4

from pydantic import ValidationError

_CALLERS_FAULT = ("not existing vector", "wrong input", "bad request", "index", "invalid", "validation", "expected")
REAL = "put a `qdrant` binary on PATH or name one in PLINTH_QDRANT"
MISTAKES = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What a body of another form than expected leads to."""
_OUT_OF_RANGE = frozenset({"greater_than_equal", "greater_than", "less_than_equal"})
log = logging.getLogger("plinth.embedded")


class ApiError(Exception):
    """An answer that is an error: ``status`` is the HTTP code, the message goes into Qdrant's envelope."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refused(what: str) -> ApiError:
    """What the embedded engine cannot do, and what can."""
    return ApiError(501, f"The embedded engine has no {what}; for that run a real server: {REAL}.")


def malformed(message: str) -> ApiError:
    """A body that is not what the endpoint takes."""
    return ApiError(400, f"Format error in JSON body: {message}")


def invalid(message: str) -> ApiError:
    """A body whose values are not allowed."""
    return ApiError(422, f"Validation error in JSON body: [{message}]")


def from_validation(error: ValidationError) -> ApiError:
    """A body that a type refuses: its first mistake, by place."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "body"
    message = f"{place}: {first['msg']}"
    return invalid(message) if first["type"] in _OUT_OF_RANGE else malformed(message)


def from_mistake(error: Exception) -> ApiError:
    """A body of another form than expected, by one of :data:`MISTAKES`."""
    return malformed(f"{type(error).__name__}: {error}")


def missing_collection(name: str) -> ApiError:
    """A collection that is not there."""
    return ApiError(404, f"Not found: Collection `{name}` doesn't exist!")


def no_space() -> ApiError:
    """A disk without room, in Qdrant's words."""
    return ApiError(
        500, "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
    )


def internal(error: BaseException, during: str) -> ApiError:
    """A fault of ours: paths and traceback go to the log alone, under an id that is answered."""
    request_id = uuid4().hex
    log.error("request id %s, %r", request_id, during, exc_info=error)
    return ApiError(500, f"Service internal error; the engine's log says more under request id {request_id}")


def from_edge(error: Exception) -> ApiError:
    """The wheel raises bare exceptions; their words tell the kind."""
    words = str(error)
    lowered = words.lower()
    if "dimension" in lowered:
        return ApiError(400, f"Wrong input: {words}")
    if "no point with id" in lowered:
        return ApiError(404, f"Not found: {words}")
    if "no space" in lowered:
        return no_space()
    if isinstance(error, RecursionError):
        return malformed("it is nested too deeply")
    if any(mark in lowered for mark in _CALLERS_FAULT):
        return ApiError(400, f"Wrong input: {words}")
    return internal(error, "the shard")
