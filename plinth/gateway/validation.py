"""What is wrong with a request, in one sentence that names the fields and repeats none of what was sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from plinth.gateway.errors import ErrorKind, FieldViolation, GatewayError

ERRORS_MAX, VIOLATIONS_MAX = 200, 20
FIELD_MAX, REASON_MAX = 128, 300
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], content: Mapping[str, Any], prefix: Sequence[str | int] = ()) -> Model:
    """A request of a model; raises :class:`GatewayError`. ``prefix`` is where the content stands in the message."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False), content, prefix) from None


def validation_error(
    errors: Iterable[Mapping[str, Any]], content: Any = None, prefix: Sequence[str | int] = ()
) -> GatewayError:
    """What pydantic says of a request; ``content`` is the request, where it is known."""
    reasons: dict[str, list[str]] = {}
    for error in itertools.islice(errors, ERRORS_MAX):
        location = ".".join(map(str, (*prefix, *_path(error, content)))) or "body"
        reasons.setdefault(location[:FIELD_MAX], []).append(_reason(error))
    # Of the forms that a field may have, the one that it nearly has says what is wrong with a part of it.
    whole = {field for field in reasons if any(other.startswith(f"{field}.") for other in reasons)}
    violations = tuple(
        FieldViolation(field, " or ".join(dict.fromkeys(own))[:REASON_MAX])
        for field, own in reasons.items()
        if field not in whole
    )[:VIOLATIONS_MAX]
    first = violations[0] if violations else FieldViolation("body", "it is not valid")
    message = f"{first.field}: {first.reason}"
    if "filter" in first.field.split("."):
        message = f"invalid filter syntax: {message}"
    return GatewayError(ErrorKind.invalid_argument, message, violations=violations or (first,))


def _path(error: Mapping[str, Any], content: Any) -> list[str | int]:
    """The way to a field. Pydantic's has the names of the types that it tried as well, which no request has."""
    parts = [part for part in error["loc"] if part not in ("body", "query", "path", "header")]
    if content is None:
        return parts
    path: list[str | int] = []
    for part in parts:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return [*path, parts[-1]] if error["type"] == "missing" else path


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "this field is unknown"
    if error["type"] == "missing":
        return "this field is missing"
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{reason[:1].lower()}{reason[1:]}"
