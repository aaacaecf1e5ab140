"""Requests that a collection's configuration forbids: strict mode, and searches that would quietly find rubbish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plinth.embedded.errors import ApiError
from plinth.embedded.filters import demands, keys_of


def check_read(operation: str, body: Any, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
    """Refuse a reading request that the collection's configuration does not allow."""
    if not isinstance(body, dict):
        return
    strict = config.get("strict_mode_config") or {}
    searches = body.get("searches") or [] if operation == "query_batch" else [body]
    for search in searches:
        if strict.get("enabled"):
            _strict(search, strict, indexes)
        if operation.startswith("query"):
            _scope(search, config, indexes)


def check_write(operation: str, body: Any, config: Mapping[str, Any]) -> None:
    """Refuse a checked upsert that is larger than strict mode allows, listed or in columns, alone or in a batch."""
    strict = config.get("strict_mode_config") or {}
    largest = strict.get("upsert_max_batchsize")
    if not strict.get("enabled") or not largest:
        return
    operations = [{operation: body}] if operation != "batch" else body["operations"]
    for upsert in (single["upsert"] for single in operations if "upsert" in single):
        size = len(upsert["batch"]["ids"] if "batch" in upsert else upsert["points"])
        if size > largest:
            raise ApiError(400, f"Wrong input: Upsert limit exceeded {size} > {largest} for upsert limit")


def _strict(body: Mapping[str, Any], strict: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
    params = body.get("params") or {}
    limits = (
        ("max_query_limit", body.get("limit"), "limit"),
        ("search_max_hnsw_ef", params.get("hnsw_ef"), "hnsw_ef"),
        ("search_max_oversampling", (params.get("quantization") or {}).get("oversampling"), "oversampling"),
    )
    for key, value, name in limits:
        if strict.get(key) is not None and value is not None and value > strict[key]:
            raise ApiError(400, f"Wrong input: Limit exceeded {value} > {strict[key]} for {name}")
    if strict.get("search_allow_exact") is False and params.get("exact"):
        raise ApiError(400, "Wrong input: Exact search is disabled; set search_allow_exact, or leave exact out")
    if strict.get("unindexed_filtering_retrieve") is False:
        for key in keys_of(body.get("filter")):
            if key not in indexes:
                raise ApiError(
                    400, f'Bad request: Index required but not found for "{key}"; create a payload index for it'
                )
    for stage in body.get("prefetch") or []:
        _strict(stage, strict, indexes)


def _scope(body: Mapping[str, Any], config: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
    """Without a global graph a search outside its links finds next to nothing right: recall .06 on a real server.

    Links are within a tenant, and within each of a flag's two values (docs/tuning.md).
    """
    graph = config["hnsw_config"]
    tenants = {field for field, schema in indexes.items() if isinstance(schema, dict) and schema.get("is_tenant")}
    if graph.get("m") != 0 or not graph.get("payload_m") or not tenants:
        return
    linked = tenants | {field for field, schema in indexes.items() if _type(schema) == "bool"}
    for search in _vector_searches(body):
        if demands(search.get("filter"), linked) or demands(body.get("filter"), linked):
            continue
        if not (search.get("params") or {}).get("exact"):
            raise ApiError(
                400,
                "Wrong input: this collection has links within a tenant only (m 0); add a must filter that matches "
                f"{' or '.join(sorted(linked))}, or search with params.exact",
            )


def _type(schema: Any) -> Any:
    return schema.get("type") if isinstance(schema, Mapping) else schema


def _vector_searches(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    prefetch = body.get("prefetch") or []
    for inner in [prefetch] if isinstance(prefetch, dict) else prefetch:
        yield from _vector_searches(inner)
    query = body.get("query")
    if query is None or (isinstance(query, dict) and {"fusion", "rrf", "order_by", "sample"} & query.keys()):
        return
    if not prefetch:
        yield body
