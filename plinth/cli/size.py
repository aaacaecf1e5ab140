"""`plinth size`: how much memory and disk, which tier, until when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from plinth.cli.common import Json, print_json
from plinth.errors import UserError
from plinth.qdrant.spec import CollectionSpec, load_spec, load_specs, named
from plinth.services.project_files import collection_specs
from plinth.settings import Settings
from plinth.settings.loader import load_settings, project_root
from plinth.settings.tiers import SIZES
from plinth.sizing import (
    GIB,
    HEADROOM,
    MIB,
    PROCESS_BYTES,
    QUANTIZATIONS,
    REBUILD,
    Estimate,
    Workload,
    estimate,
    fits,
    linked_fields,
    months_until_full,
    quantization_name,
    to_json,
)
from plinth.system.console import console, line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(size)


def size(
    vectors: Annotated[int, typer.Option(min=1, help="Points, now.")],
    dimensions: Annotated[int | None, typer.Option(min=1, max=65536, help="Of a vector.")] = None,
    quantization: Annotated[str | None, typer.Option(help=f"One of {', '.join(QUANTIZATIONS)}.")] = None,
    tenants: Annotated[int, typer.Option(min=1, help="Tenants in the collection.")] = 1,
    replicas: Annotated[int | None, typer.Option(min=1, help="Copies of each shard.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Peers of the cluster.")] = None,
    payload_bytes: Annotated[int, typer.Option(min=0, help="JSON of a point's payload, bytes.")] = 500,
    indexed_bytes: Annotated[int, typer.Option(min=0, help="Of these the indexed fields, bytes.")] = 50,
    growth: Annotated[int, typer.Option(min=0, help="Points that come a month.")] = 0,
    cold_vectors: Annotated[bool, typer.Option("--cold-vectors", help="Originals on disk, read to rescore.")] = False,
    collection: Annotated[
        str | None, typer.Option(help="Take dimensions, quantization and links from this collection or file.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="Take nodes and replicas from this environment, and judge it.")
    ] = None,
    json: Json = False,
) -> None:
    """Memory, disk and tier for a number of vectors; exit 1 when nothing holds them.

    Example: plinth size --vectors 1000000 --collection trades --env prod --growth 50000
    """
    settings = load_settings(project_root(), env) if env else None
    spec = _spec(collection, settings) if collection else None
    peers, copies = _from_environment(settings, nodes, replicas)
    workload = Workload(
        vectors=vectors,
        nodes=peers,
        replicas=copies,
        tenants=tenants,
        payload_bytes=payload_bytes,
        indexed_bytes=indexed_bytes,
        growth=growth,
        cold_vectors=cold_vectors,
        **_from_collection(spec, dimensions, quantization),
    )
    if cold_vectors and workload.quantization == "none":
        raise UserError("--cold-vectors wants quantized vectors to be searched first; give --quantization int8 too.")
    found = estimate(workload)
    judged = _judged(found, settings)
    if json:
        print_json(to_json(found) | ({"environment": {"name": env, **judged}} if judged else {}))
    else:
        _show(found)
        if judged:
            console.print(line(f"  {env}: ", *_environment_sentence(judged)))
    if found.tier is None or (judged and not judged["holds"]):
        raise typer.Exit(1)


def _spec(name: str, settings: Settings | None) -> CollectionSpec:
    if name.endswith((".yaml", ".yml")):
        return load_spec(Path(name))
    root = project_root()
    specs = collection_specs(settings, root) if settings else load_specs(root / "config" / "collections")
    return named(specs, name)


def _from_collection(spec: CollectionSpec | None, dimensions: int | None, quantization: str | None) -> dict[str, Any]:
    """What the options say, else the collection's file."""
    if dimensions is None and spec is None:
        raise UserError("How long is a vector? Give --dimensions 768, or --collection with a name or a file.")
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise UserError(f"--quantization is '{quantization}'; it is one of {', '.join(QUANTIZATIONS)}.")
    if spec is None:
        return {"dimensions": dimensions, "quantization": quantization or "none"}
    graph = spec.hnsw_config
    return {
        "dimensions": dimensions or spec.vectors.size,
        "quantization": quantization or quantization_name(spec.quantization_config),
        "datatype": spec.vectors.datatype or "float32",
        "m": 16 if graph.m is None else graph.m,
        "payload_m": graph.payload_m or 0,
        "linked_fields": linked_fields(spec),
    }


def _from_environment(settings: Settings | None, nodes: int | None, replicas: int | None) -> tuple[int, int]:
    """Nodes and replicas: what the options say, else the environment's."""
    found = nodes or (settings.qdrant.nodes if settings else 1)
    copies = replicas or (settings.qdrant.replication_factor if settings else 1)
    if copies > found:
        raise UserError(
            f"{copies} replicas of a shard need as many nodes, and there are {found}; give --nodes {copies} or more."
        )
    return found, copies


def _judged(found: Estimate, settings: Settings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    months = months_until_full(found.workload, found.shard_number, settings.size)
    return {
        "tier": settings.tier,
        "memory_mib": settings.size.memory_mib,
        "disk_gib": settings.size.disk_gib,
        "holds": fits(found.need, settings.size),
        "months_until_full": months,
    }


def _environment_sentence(judged: dict[str, Any]) -> tuple[tuple[str, str], str]:
    offered = f"{judged['memory_mib']} MiB and {judged['disk_gib']} GiB a node (tier {judged['tier']})"
    if not judged["holds"]:
        return (f"{offered} are not enough.", "red"), ""
    months = judged["months_until_full"]
    return (f"{offered} hold it", "green"), "." if months is None else f" for {months} more months."


def _show(found: Estimate) -> None:
    load = found.workload
    table = Table(title=f"{load.vectors:,} vectors of {load.dimensions}, one copy", title_justify="left")
    for column in ("part", "formula", "memory", "disk", ""):
        table.add_column(column, justify="right" if column in ("memory", "disk") else "left")
    for part in found.parts:
        table.add_row(part.name, part.formula, _size(part.ram), _size(part.disk), "hot" if part.hot else "cached")
    console.print(table)
    console.print(*_sums(found), sep="\n")


def _sums(found: Estimate) -> list[Text]:
    load, wanted = found.workload, found.need
    copies = f"{load.replicas} replica(s) in {found.shard_number} shard(s) on {load.nodes} node(s)"
    lines = [
        f"{copies}; a node, with {_size(PROCESS_BYTES)} for the process:",
        f"memory  {_size(wanted.hot)} hot, {_size(wanted.total)} with everything cached; "
        f"with {HEADROOM - 1:.0%} to spare {_size(wanted.ram)}",
        f"disk    {_size(wanted.disk)}: {REBUILD:g} times the data while an optimizer rewrites it, and the log",
        _tenants(found),
    ]
    shown = [*(line(f"  {text}") for text in lines), line("  tier    ", *_tier(found))]
    if found.months is not None:
        shown.append(line(f"  growth  {load.growth:,} a month: full in {found.months} months"))
    return shown


def _tenants(found: Estimate) -> str:
    load, limit = found.workload, found.scanned_tenant_points
    each = load.vectors // load.tenants
    how = "scanned, exact" if each < limit else "searched by the graph"
    return f"tenants {load.tenants:,} of {each:,} points on average: {how} (the limit is {limit:,})"


def _tier(found: Estimate) -> tuple[tuple[str, str], str]:
    if found.tier is None:
        none = f"none on {found.workload.nodes} node(s)"
        return (none, "red"), f"; {found.nodes_needed} nodes of tier large hold it"
    chosen = SIZES[found.tier]
    offered = f" ({chosen.cpus:g} cores, {chosen.memory_mib} MiB, {chosen.disk_gib} GiB a node)"
    return (found.tier, "green"), offered


def _size(count: float) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / MIB:,.1f} MiB"
