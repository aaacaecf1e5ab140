"""`plinth tune COLLECTION [ENV]`: which settings serve a collection's vectors best."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from plinth.cli.common import Json, outputs_of, print_json, progress_console, stack_of
from plinth.errors import UserError
from plinth.paths import home
from plinth.qdrant.client import Qdrant
from plinth.qdrant.ephemeral import Kind, scratch
from plinth.qdrant.spec import CollectionSpec, load_spec, load_specs, named
from plinth.settings.loader import project_root
from plinth.sizing import GIB, Workload, estimate, linked_fields, quantization_name
from plinth.system.console import console
from plinth.system.managed_process import terminable
from plinth.tune.pareto import Point, settings_lines
from plinth.tune.recall_bands import BANDS, WHOLE
from plinth.tune.sample import Sample, live, offline
from plinth.tune.search_space import QUANTIZATIONS, Build, builds
from plinth.tune.sweep import Tuned, sweep
from plinth.tune.trial import Bench

MILLION = 1_000_000
SAMPLES = ("auto", "wordnet", "generated", "live")
ENGINES: dict[str, Kind] = {"auto": "auto", "server": "server", "embedded": "embedded"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(
    collection: Annotated[str, typer.Argument(help="A collection, an alias of it, or a file.", show_default=False)],
    env: Annotated[str | None, typer.Argument(help="Sample the points of this running environment.")] = None,
    sample: Annotated[str, typer.Option(help=f"One of {', '.join(SAMPLES)}.")] = "auto",
    points: Annotated[int, typer.Option(min=500, help="Points of the sample.")] = 8000,
    queries: Annotated[int, typer.Option(min=40, help="Half of them have no part in the choice.")] = 400,
    floor: Annotated[float, typer.Option(min=0, max=1, help="recall@10 for every size of tenant.")] = 0.97,
    budget_s: Annotated[float, typer.Option(min=1, help="Seconds for all builds together.")] = 900,
    quantization: Annotated[
        list[str] | None, typer.Option(help=f"Beside the collection's own: {', '.join(QUANTIZATIONS)}.")
    ] = None,
    engine: Annotated[str, typer.Option(help=f"One of {', '.join(ENGINES)}; it is started for this alone.")] = "auto",
    json: Json = False,
) -> None:
    """Try graphs and ways to search them on a sample, and print the front and the lines for the file.

    Exit 1 when nothing meets the floor, 3 when the budget ended first. Never touches a running stack, except to read
    the sample. Example: plinth tune trades --floor 0.98 --budget-s 600
    """
    _known("--sample", sample, SAMPLES)
    _known("--engine", engine, tuple(ENGINES))
    for name in quantization or ():
        _known("--quantization", name, tuple(QUANTIZATIONS))
    tell = _teller(json)
    spec, data = _sampled(collection, env, sample, points, queries, tell)
    own = quantization_name(spec.quantization_config)
    tell(f"{data.name}: {len(data.vectors):,} points, intrinsic dimension {data.intrinsic_dimension:.0f}")
    tried = builds(spec, list(dict.fromkeys([own, *(quantization or ())])))
    serves, found = _swept(spec, data, tried, ENGINES[engine], floor, budget_s, tell)
    lines = settings_lines(spec, found.chosen, _section(spec, found.chosen.build, own)) if found.chosen else None
    if json:
        print_json(_report(spec, data, serves, floor, found, lines))
    else:
        _show(found, floor, spec, lines)
    raise typer.Exit(found.exit_code)


def _swept(
    spec: CollectionSpec,
    data: Sample,
    tried: list[Build],
    kind: Kind,
    floor: float,
    budget_s: float,
    tell: Callable[[str], None],
) -> tuple[str, Tuned]:
    """What was found, and the engine that it was found on."""
    own = quantization_name(spec.quantization_config)
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="plinth-tune-") as directory,
        scratch(kind, Path(directory) / "engine") as server,
    ):
        with Qdrant(server.url, server.api_key) as client:
            serves = client.banner()
        tell(f"on {serves}, started for this alone")
        bench = Bench(server, spec, own, data)
        try:
            found = sweep(
                tried,
                bench.trial,
                lambda build: memory_of_a_million(spec, build),
                floor=floor,
                budget_s=budget_s,
                on_progress=tell,
            )
        finally:
            bench.close()
    return serves, found


def memory_of_a_million(spec: CollectionSpec, build: Build) -> float:
    """Bytes that must stay in memory for a million of the collection's vectors with such a graph."""
    load = Workload(
        vectors=MILLION,
        dimensions=spec.vectors.size,
        quantization=build.quantization,
        datatype=spec.vectors.datatype or "float32",
        m=build.m,
        payload_m=build.payload_m,
        linked_fields=linked_fields(spec),
    )
    return estimate(load).need.hot


def _sampled(
    collection: str, env: str | None, sample: str, points: int, queries: int, tell: Callable[[str], None]
) -> tuple[CollectionSpec, Sample]:
    """The collection and the sample: from a running environment when one is named, unless another sample is asked."""
    if env is None:
        if sample == "live":
            raise UserError("--sample live takes the points of a running environment; name it after the collection.")
        root = project_root()
        is_file = collection.endswith((".yaml", ".yml"))
        spec = (
            load_spec(Path(collection)) if is_file else named(load_specs(root / "config" / "collections"), collection)
        )
        return spec, offline(sample, spec, points, queries, home(root, "tune").cache, tell)
    stack = stack_of(env)
    spec = named(stack.plan.collections, collection)
    if sample not in ("auto", "live"):
        return spec, offline(sample, spec, points, queries, stack.home.cache, tell)
    where = outputs_of(stack)["qdrant"]
    with Qdrant(where["url"], where["api_key"], ca_cert=where.get("ca_cert")) as client:
        return spec, live(client, spec, points, queries, tell)


def _known(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{option} is '{value}'; it is one of {', '.join(allowed)}.")


def _teller(json: bool) -> Callable[[str], None]:
    """Progress goes beside the answer where a machine reads that."""
    out = progress_console(json=json)
    return lambda words: out.print(f"  {words}")


def _section(spec: CollectionSpec, build: Build, own: str) -> dict[str, Any] | None:
    if build.quantization == own:
        return spec.quantization_config.model_dump(exclude_none=True) if spec.quantization_config else None
    return QUANTIZATIONS[build.quantization]


def _report(
    spec: CollectionSpec, data: Sample, engine: str, floor: float, found: Tuned, lines: str | None
) -> dict[str, Any]:
    return {
        "collection": spec.name,
        "engine": engine,
        "sample": {
            "name": data.name,
            "points": len(data.vectors),
            "dimensions": int(data.vectors.shape[1]),
            "queries": len(data.queries),
            "intrinsic_dimension": data.intrinsic_dimension,
            "largest_tenant": max(data.shares.values(), default=None),
        },
        "floor": floor,
        "graphs_tried": len(found.tried),
        "graphs_left_out": found.left_out,
        "builds": sum(len(outcomes) for outcomes in found.tried.values()),
        "front": [point.to_json() for point in found.front],
        "refuted": [point.to_json() for point in found.refuted],
        "chosen": found.chosen.to_json() if found.chosen else None,
        "confirmed": found.confirmed.to_json() if found.confirmed else None,
        "settings": lines,
        "verdict": found.sentence(floor),
    }


def _show(found: Tuned, floor: float, spec: CollectionSpec, lines: str | None) -> None:
    bands = [band for band in (WHOLE, *(name for _, name in BANDS)) if found.front and band in found.front[0].recall]
    table = Table(title="Worth having: recall@10 in the worst build, engine's own ms", title_justify="left")
    graph = ("m", "payload_m", "ef_con", "quant", "ef", "rescore")
    for column in (*graph, *bands, "p50", "p95", "hot GiB/million", ""):
        table.add_column(column, justify="left" if column == "quant" else "right")
    for point in found.front:
        table.add_row(*_row(point, bands), "chosen" if point == found.chosen else "" if point.meets(floor) else "below")
    console.print(table)
    colour = "green" if found.chosen else "red"
    console.print(found.sentence(floor), style=colour)
    if lines:
        console.print("", f"For the file of {spec.name}, in the place of what it has:", "", sep="\n")
        console.print(*lines.splitlines(), sep="\n")


def _row(point: Point, bands: list[str]) -> list[str]:
    build, search = point.build, point.search
    graph = [str(build.m), str(build.payload_m), str(build.ef_construct), build.quantization, str(search.ef)]
    rescore = f"x{search.oversampling:g}" if search.rescore else "no"
    recalls = [f"{point.recall[band]:.3f}" for band in bands]
    return [*graph, rescore, *recalls, f"{point.p50_ms:.2f}", f"{point.p95_ms:.2f}", f"{point.memory / GIB:.2f}"]
