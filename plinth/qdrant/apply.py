"""Execution of a plan, and a check that the server applied it."""

from __future__ import annotations

from plinth.errors import UserError
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.plan import (
    CreateCollection,
    CreateIndex,
    DropIndex,
    Plan,
    Step,
    SwitchAliases,
    UpdateCollection,
    plan_collection,
)
from plinth.qdrant.render import render
from plinth.qdrant.server_state import read_collection
from plinth.qdrant.spec import CollectionSpec
from plinth.system.http_client import url_path


def refuse(plan: Plan) -> None:
    """Raise when the plan refuses something, with every message."""
    if plan.refusals:
        raise UserError(" ".join(refusal.sentence for refusal in plan.refusals), exit_code=1)


def apply(client: Qdrant, plan: Plan) -> None:
    """Execute every step in order; a plan with refusals is not started."""
    refuse(plan)
    for step in plan.steps:
        _do(client, step)


def converge(client: Qdrant, spec: CollectionSpec) -> None:
    """Bring one collection to its spec and read it back.

    A second round handles a create that lost a race to another run: the collection exists now, and may differ.
    """
    for _ in range(2):
        steps = plan_collection(spec, read_collection(client, spec.name))
        if steps.empty:
            return
        apply(client, steps)
    left = plan_collection(spec, read_collection(client, spec.name))
    if not left.empty:
        raise UserError(
            f"{spec.name}: the server at {client.url} did not take {' '.join(render(left).split())}; "
            "see whether its version knows these keys.",
            exit_code=1,
        )


def _do(client: Qdrant, step: Step) -> None:
    match step:
        case CreateCollection(collection, body):
            try:
                client.call("PUT", collection_path(collection), dict(body))
            except QdrantError as error:
                # Another run has created it; `converge` reads it and plans again.
                if error.status != 409:
                    raise
        case UpdateCollection(collection, patch, _):
            client.call("PATCH", collection_path(collection), dict(patch))
        case CreateIndex(collection, field, schema):
            body = {"field_name": field, "field_schema": dict(schema)}
            client.call("PUT", f"{collection_path(collection)}/index?wait=true", body)
        case DropIndex(collection, field):
            client.call("DELETE", f"{collection_path(collection)}/index{url_path(field)}?wait=true")
        case SwitchAliases(point, remove):
            actions: list[dict[str, dict[str, str]]] = [{"delete_alias": {"alias_name": alias}} for alias in remove]
            for alias, collection in point.items():
                actions.append({"create_alias": {"alias_name": alias, "collection_name": collection}})
            client.call("POST", "/collections/aliases", {"actions": actions})
