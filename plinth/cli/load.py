"""`plinth load ENV`: the load gate."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from plinth import machine
from plinth.child import terminable
from plinth.cli.common import Env, Json, console, outputs_of, print_json, progress_console, stack_of
from plinth.collection_files import collection_specs
from plinth.console import line
from plinth.errors import UserError
from plinth.load import against as turns
from plinth.load import baseline as baselines
from plinth.load.annotate import annotate
from plinth.load.dataset import dataset
from plinth.load.fixture import gate_spec
from plinth.load.gate import Prepared, Server, measured, run
from plinth.load.own_collection import own_collection
from plinth.load.page import page
from plinth.load.record import ReportRecord
from plinth.load.report import COLOURS, Report
from plinth.load.slo import load_slo
from plinth.load.verdict import Verdict, lateness, soundness
from plinth.monitoring.marks import FILE as MARKS
from plinth.monitoring.marks import mark_load
from plinth.output_files import output_files
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.spec import CollectionSpec
from plinth.stack import Stack
from plinth.umask import users_umask

TUNED = "embeddings"
Say = Callable[[str], None]


class Protocol(StrEnum):
    """What the load travels by."""

    rest = "rest"
    grpc = "grpc"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(load)


def load(
    env: Env,
    profile: Annotated[str, typer.Option(help="A profile of load/slo.yaml: smoke, release, soak, stress.")] = "smoke",
    protocol: Annotated[Protocol, typer.Option(help="What the load travels by.")] = Protocol.rest,
    url: Annotated[str | None, typer.Option(help="Another address of the same server, such as a port-forward.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Another environment; take turns with it, and fail when this one is slower.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A report of --json-out; fail when an operation is slower than in it.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    html_out: Annotated[Path | None, typer.Option(help="Write the report as a page with plots.")] = None,
    junit_out: Annotated[Path | None, typer.Option(help="Write the report as JUnit's XML.")] = None,
    workers: Annotated[
        Path | None, typer.Option(help="Hand the job out in this directory, to workers of other machines.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the run's collection on the server.")] = False,
    json: Json = False,
) -> None:
    """Judge an environment under load: exit 0 pass, 1 fail, 3 void. Example: plinth load local --profile smoke"""
    files = output_files({"--json-out": json_out, "--html-out": html_out, "--junit-out": junit_out})
    if workers and not workers.is_dir():
        raise UserError(f"--workers {workers} is no directory; name one that the workers' machines share.")
    then = baselines.read(baseline) if baseline else None
    stack = stack_of(env)
    with terminable(), _no_verdict():
        if against:
            _refuse_beside_against(
                {**files, "--baseline": baseline, "--url": url, "--workers": workers, "--json": json}
            )
            raise typer.Exit(_take_turns(stack, stack_of(against), profile, protocol, keep=keep))
        say = _teller(json)
        if then:
            baselines.require_alike(_kind(stack, profile, protocol, say), then)
        report = measure(stack, outputs_of(stack), profile, protocol, url, then, say, workers, keep=keep)
    _write(report, *files.values())
    if json:
        print_json(report.to_json())
    else:
        show(report)
    raise typer.Exit(report.verdict.exit_code)


@contextmanager
def _no_verdict() -> Iterator[None]:
    """A server that is not there, or refuses to be prepared, was not measured: that is no verdict on its speed."""
    try:
        yield
    except QdrantError as error:
        raise UserError(f"No verdict: {error}", exit_code=3) from error


def _refuse_beside_against(options: Mapping[str, object]) -> None:
    given = [option for option, value in options.items() if value]
    if given:
        raise UserError(f"--against compares rounds in turn and makes no report; leave {', '.join(given)} out.")


def _kind(stack: Stack, profile_name: str, protocol: Protocol, say: Say) -> baselines.Kind:
    """What kind of run is asked for."""
    profile = load_slo(stack.root / stack.settings.slo.file).profile(profile_name)
    rate = (profile.steps or (profile.rate_per_s,))[0]
    data = dataset(profile.data, stack.home.cache, say).described
    return baselines.Kind(profile_name, protocol.value, rate, data, machine.described())


def _take_turns(stack: Stack, other: Stack, profile_name: str, protocol: Protocol, *, keep: bool) -> int:
    """Compare two environments by rounds in turn; the exit code."""
    slo = load_slo(stack.root / stack.settings.slo.file)
    profile, locustfile = slo.profile(profile_name), stack.root / "load" / "locustfile.py"
    data = dataset(profile.data, stack.home.cache, _say)
    with ExitStack() as open_clients:
        sides = []
        for side in (stack, other):
            server = _server(outputs_of(side))
            client = open_clients.enter_context(Qdrant(server.url, server.api_key, ca_cert=server.ca_cert))
            spec = open_clients.enter_context(own_collection(client, gate_spec(_tuned(side), data), keep, _say))
            sides.append(Prepared(client, server, spec, data, protocol.value, locustfile, _say))
        ours, theirs = turns.interleaved(
            sides[0].send,
            sides[1].send,
            profile,
            lambda number, side: _say(f"Round {number} of {turns.PAIRS}, {(stack, other)[side].env}:"),
        )
    found = turns.ratios(ours, theirs, profile)
    table = Table(title=f"{stack.env} by {other.env}, {len(ours)} rounds each in turn", title_justify="left")
    for column in ("operation", "percentile", "ratio", "within"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for ratio in found:
        table.add_row(
            ratio.operation, f"p{ratio.percentile}", f"{ratio.value:.2f}", f"{ratio.low:.2f} - {ratio.high:.2f}"
        )
    console.print(table)
    both = [
        measured(kept, None, profile, data, side.recall, side.not_ready)
        for side, kept in zip(sides, (ours, theirs), strict=True)
    ]
    own, others = (soundness(one, slo, profile) for one in both)
    late = next((words for one in both if (words := lateness(one, slo))), ())
    verdict = turns.verdict(found, own, others, late)
    _conclude(verdict)
    return verdict.exit_code


def measure(
    stack: Stack,
    outputs: dict[str, Any],
    profile: str,
    protocol: Protocol = Protocol.rest,
    url: str | None = None,
    then: ReportRecord | None = None,
    say: Say | None = None,
    workers: Path | None = None,
    *,
    keep: bool = False,
) -> Report:
    """Run a profile against a deployed environment, and mark it in Grafana where there is one.

    ``then`` is an earlier run of the same kind, which it must not be slower than; ``workers`` is where workers of other
    machines find the job. The run's collection is dropped afterwards, unless ``keep``.
    """
    began, slo = time.monotonic(), load_slo(stack.root / stack.settings.slo.file)
    with terminable():
        report = run(
            _server(outputs, url),
            profile,
            slo,
            _tuned(stack),
            protocol=protocol.value,
            cache=stack.home.cache,
            locustfile=stack.root / "load" / "locustfile.py",
            on_progress=say or _say,
            handed_out=workers and workers.resolve(),
            keep=keep,
        )
    if then:
        compared = baselines.verdict(report.to_record(), then, slo.generator.max_lag_p95_ms)
        report = replace(report, compared=compared)
    mark_load(stack.home.watched / MARKS, report.to_json())
    if "grafana" in outputs:
        failed = annotate(outputs["grafana"], report, time.monotonic() - began)
        if failed:
            (say or _say)(f"{failed}.")
    return report


def _server(outputs: dict[str, Any], url: str | None = None) -> Server:
    where = outputs["qdrant"]
    return Server(url or where["url"], where["api_key"], where["grpc_url"].partition("://")[2], where.get("ca_cert"))


def _tuned(stack: Stack) -> CollectionSpec:
    shipped = next((spec for spec in collection_specs(stack.settings, stack.root) if TUNED in spec.aliases), None)
    if shipped is None:
        raise UserError(f"The load gate tries the tuning of '{TUNED}', which plinth:collections leaves out; add it.")
    return shipped


def show(report: Report) -> None:
    """The table and the verdict."""
    console.print(report.table())
    _conclude(report.verdict)
    if report.compared and report.compared.word == "pass":
        console.print("  No operation is slower than in the baseline.")
    if report.highest_rate_per_s:
        console.print(f"The highest rate that passed is {report.highest_rate_per_s:g} requests/s.")


def _conclude(verdict: Verdict) -> None:
    colour = COLOURS[verdict.word]
    console.print(line("Verdict: ", (verdict.word, f"bold {colour}")))
    for reason in verdict.reasons:
        console.print(f"  {reason}.")


def _say(words: str) -> None:
    console.print(f"  {words}")


def _teller(json: bool) -> Say:
    """Progress goes beside the answer where a machine reads that."""
    out = progress_console(json=json)
    return lambda words: out.print(f"  {words}")


def _write(report: Report, json_out: Path | None, html_out: Path | None, junit_out: Path | None) -> None:
    kinds = ((json_out, _json), (html_out, page), (junit_out, Report.to_junit))
    for path, render in kinds:
        if path is None:
            continue
        try:
            with users_umask():
                path.write_text(render(report) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}; name another file.") from error


def _json(report: Report) -> str:
    return jsonlib.dumps(report.to_json(), indent=2)
