"""A plan as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from plinth.qdrant.plan import CreateCollection, CreateIndex, DropIndex, Plan, Step, SwitchAliases, UpdateCollection


def lines(plan: Plan) -> list[str]:
    """Return one line for each change: `+` created, `~` changed in place, `-` removed, `!` refused."""
    steps = [line for step in plan.steps for line in _lines(step)]
    return [*steps, *(f"! {refusal.sentence}" for refusal in plan.refusals)]


def render(plan: Plan) -> str:
    """Return the lines as one text."""
    return "\n".join(lines(plan))


def to_json(plan: Plan) -> dict[str, Any]:
    """Return `in_sync`, `steps` (with `do`), `refusals` (collection, key, found, wanted, sentence), `unmanaged`."""
    return {
        "in_sync": plan.empty,
        "steps": [{"do": _snake(type(step).__name__), **asdict(step)} for step in plan.steps],
        "refusals": [{"collection": r.collection, **asdict(r.change), "sentence": r.sentence} for r in plan.refusals],
        "unmanaged": list(plan.unmanaged),
    }


def _lines(step: Step) -> list[str]:
    match step:
        case CreateCollection(collection, body):
            vectors = body["vectors"]
            return [f"+ {collection} ({vectors['size']}-d {vectors['distance']})"]
        case UpdateCollection(collection, _, changes):
            return [f"~ {collection} {c.key} {_value(c.found)} -> {_value(c.wanted)}" for c in changes]
        case CreateIndex(collection, field, schema):
            words = " ".join(key for key, value in schema.items() if value is True)
            return [f"+ {collection} index {field} {schema['type']}{f' {words}' if words else ''}"]
        case DropIndex(collection, field):
            return [f"- {collection} index {field}"]
        case SwitchAliases(point, remove):
            pointed = [f"~ alias {alias} -> {collection}" for alias, collection in point.items()]
            return pointed + [f"- alias {alias}" for alias in remove]


def _value(value: Any) -> str:
    return "unset" if value is None else str(value)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
