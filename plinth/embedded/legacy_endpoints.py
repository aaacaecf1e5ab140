"""The endpoints that `points/query` replaced, in its words: `search` and `recommend`, one, in batches, in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Required

from pydantic import Discriminator, PlainValidator, Tag, with_config
from typing_extensions import TypedDict

from plinth.embedded.conditions import Path, WholeFilter
from plinth.embedded.errors import ApiError, malformed
from plinth.embedded.request_types import STRICT, Checked, Finite, Limit, Natural, WithPayload, WithVector, unsupported
from plinth.embedded.searches import Examples, Params


def _dense(value: Any) -> Any:
    if not isinstance(value, list) or (value and isinstance(value[0], list)):
        raise malformed("vector: expected a list of numbers, or an object with name and vector")
    return value


def _dense_or_sparse(value: Any) -> Any:
    return value if isinstance(value, dict) else _dense(value)


@with_config(STRICT)
class NamedVector(TypedDict):
    """A vector with the name of what it is compared with."""

    name: str
    vector: Annotated[Any, PlainValidator(_dense_or_sparse)]


@with_config(STRICT)
class Common(TypedDict, total=False):
    """What each of them may have."""

    filter: WholeFilter | None
    params: Params | None
    score_threshold: Finite | None
    with_payload: WithPayload | None
    with_vector: WithVector | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class Groups(TypedDict, total=False):
    """How hits are grouped."""

    group_by: Required[Path]
    group_size: Required[Limit]


Vector = Annotated[
    Annotated[Any, PlainValidator(_dense), Tag("dense")] | Annotated[NamedVector, Tag("named")],
    Discriminator(lambda value: "named" if isinstance(value, dict) else "dense"),
]


@with_config(STRICT)
class Searched(Common, total=False):
    """`search`, whatever its answer's form."""

    vector: Required[Vector]
    limit: Limit
    top: Limit


@with_config(STRICT)
class Search(Searched, total=False):
    """`POST /points/search`."""

    offset: Natural | None


@with_config(STRICT)
class SearchGroups(Searched, Groups, total=False):
    """`POST /points/search/groups`."""


@with_config(STRICT)
class Recommended(Common, Examples, total=False):
    """`recommend`, whatever its answer's form."""

    limit: Limit
    top: Limit
    using: str | None


@with_config(STRICT)
class Recommend(Recommended, total=False):
    """`POST /points/recommend`."""

    offset: Natural | None


@with_config(STRICT)
class RecommendGroups(Recommended, Groups, total=False):
    """`POST /points/recommend/groups`."""


@with_config(STRICT)
class SearchBatch(TypedDict):
    """`POST /points/search/batch`."""

    searches: list[Search]


@with_config(STRICT)
class RecommendBatch(TypedDict):
    """`POST /points/recommend/batch`."""

    searches: list[Recommend]


BODIES: dict[str, Checked] = {
    "search": Checked(Search),
    "search_batch": Checked(SearchBatch),
    "search_groups": Checked(SearchGroups),
    "recommend": Checked(Recommend),
    "recommend_batch": Checked(RecommendBatch),
    "recommend_groups": Checked(RecommendGroups),
}


def translated(operation: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The present operation and its body."""
    kind, _, form = operation.partition("_")
    translate: Callable[[dict[str, Any]], dict[str, Any]] = _searched if kind == "search" else _recommended
    if form == "batch":
        return "query_batch", {"searches": [translate(search) for search in body["searches"]]}
    return ("query_groups" if form else "query"), translate(body)


def answered(operation: str, result: Any) -> Any:
    """The present answer in the older form: a list of hits, lists of them, or groups."""
    if operation.endswith("_batch"):
        return [inner["points"] for inner in result]
    return result if operation.endswith("_groups") else result["points"]


def _searched(body: dict[str, Any]) -> dict[str, Any]:
    query = _limited({key: value for key, value in body.items() if key != "vector"})
    vector = body["vector"]
    if isinstance(vector, dict):
        return query | {"query": {"nearest": vector["vector"]}, "using": vector["name"]}
    return query | {"query": {"nearest": vector}}


def _recommended(body: dict[str, Any]) -> dict[str, Any]:
    examples = {key: body[key] for key in ("positive", "negative", "strategy") if key in body}
    strategy = examples.get("strategy") or "average_vector"
    if strategy == "average_vector" and not examples.get("positive"):
        raise ApiError(400, "Bad request: At least one positive vector ID required with this strategy")
    query = _limited({key: value for key, value in body.items() if key not in examples})
    return query | {"query": {"recommend": examples}}


def _limited(body: dict[str, Any]) -> dict[str, Any]:
    """`top` is an older word still."""
    if len(body.keys() & {"limit", "top"}) != 1:
        raise malformed("missing field `limit`; `top` is another word for it")
    rest = {key: value for key, value in body.items() if key != "top"}
    return {"limit": body.get("top"), **rest}
