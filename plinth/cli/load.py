"""`plinth load ENV`: the load gate."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from plinth.cli.common import Env, Json, outputs_of, print_json, progress_console, stack_of
from plinth.cli.load_gateway import DIRECT, beside_direct, gateway_of
from plinth.cli.load_in_stack import run_in_stack, why_from_here
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load import baseline as baselines
from plinth.load import interleaved as turns
from plinth.load.collection_setup import gate_spec
from plinth.load.dataset import dataset
from plinth.load.gate import Prepared, Server, measured, run
from plinth.load.grafana_annotation import annotate
from plinth.load.html_report import page
from plinth.load.own_collection import own_collection
from plinth.load.report import COLOURS, Report
from plinth.load.report_schema import ReportRecord
from plinth.load.slo import Profile, Slo, load_slo
from plinth.load.through_gateway import GatewayServer
from plinth.load.verdict import Verdict, lateness, soundness
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.spec import CollectionSpec
from plinth.settings import TargetName
from plinth.status_files.events import FILE as MARKS
from plinth.status_files.events import mark_load
from plinth.system import hardware
from plinth.system.console import console, line
from plinth.system.managed_process import terminable
from plinth.system.output_files import output_files
from plinth.system.umask import users_umask

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
    profile: Annotated[
        str,
        typer.Option(help="A profile of load/slo.yaml: smoke, release, soak, stress, gateway-smoke, gateway-release."),
    ] = "smoke",
    protocol: Annotated[Protocol, typer.Option(help="What the load travels by.")] = Protocol.rest,
    url: Annotated[str | None, typer.Option(help="Another address of the same server, such as a port-forward.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another environment; take turns with it, and fail when this one is slower. `direct`, "
            "with a profile of the gateway: what that adds to Qdrant."
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A report of --json-out; fail when an operation is slower than in it.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    html_out: Annotated[Path | None, typer.Option(help="Write the report as a page with plots.")] = None,
    junit_out: Annotated[Path | None, typer.Option(help="Write the report as JUnit's XML.")] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|DIRECTORY",
            help="So many Locust workers, in place of the profile's `processes`; or a directory in which the job is "
            "handed out to workers of other machines.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the run's collection on the server.")] = False,
    json: Json = False,
) -> None:
    """Judge an environment under load: exit 0 pass, 1 fail, 3 void. Example: plinth load local --profile smoke"""
    files = output_files({"--json-out": json_out, "--html-out": html_out, "--junit-out": junit_out})
    processes, handed_out = _workers(workers)
    then = baselines.read(baseline) if baseline else None
    stack = stack_of(env)
    with terminable(), _no_verdict():
        if against:
            _refuse_beside_against(
                {**files, "--baseline": baseline, "--url": url, "--workers": workers, "--json": json}
            )
            if against == DIRECT or _profile(stack, profile).through == "gateway":
                raise typer.Exit(_beside_direct(stack, against, profile, protocol, keep=keep))
            raise typer.Exit(_take_turns(stack, stack_of(against), profile, protocol, keep=keep))
        say = _teller(json)
        options = RunOptions(profile, protocol, url, then, processes, handed_out, keep)
        report = measure(stack, outputs_of(stack), options, say)
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


def _kind(stack: Stack, slo: Slo, options: RunOptions, say: Say, *, is_here: bool) -> baselines.Kind:
    """What kind of run is asked for; one that is carried out elsewhere says of itself on which machine."""
    profile = slo.profile(options.profile)
    rate = (profile.steps or (profile.rate_per_s,))[0]
    data = dataset(profile.data, stack.home.cache, say).described
    elsewhere = None if is_here else (options.then.machine if options.then else None)
    return baselines.Kind(options.profile, options.protocol.value, rate, data, elsewhere or hardware.described())


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


def _profile(stack: Stack, name: str) -> Profile:
    return load_slo(stack.root / stack.settings.slo.file).profile(name)


def _beside_direct(stack: Stack, against: str, profile_name: str, protocol: Protocol, *, keep: bool) -> int:
    """Compare the gateway with the Qdrant behind it; the exit code."""
    slo = load_slo(stack.root / stack.settings.slo.file)
    if slo.profile(profile_name).through != "gateway" or against != DIRECT:
        raise UserError(
            f"--against {DIRECT} is for profiles that go through the gateway, such as gateway-smoke, and those take no "
            "other; name another profile or another environment."
        )
    verdict = beside_direct(
        stack, _server(outputs_of(stack)), _tuned(stack), slo, profile_name, protocol.value, _say, keep=keep
    )
    _conclude(verdict)
    return verdict.exit_code


@dataclass(frozen=True)
class RunOptions:
    """What kind of run is asked for.

    ``then`` is an earlier run of the same kind, which it must not be slower than; ``processes`` are the workers in
    place of the profile's; ``handed_out`` is where workers of other machines find the job. The run's collection is
    dropped afterwards, unless ``keep``.
    """

    profile: str = "smoke"
    protocol: Protocol = Protocol.rest
    url: str | None = None
    then: ReportRecord | None = None
    processes: int | None = None
    handed_out: Path | None = None
    keep: bool = False

    @property
    def is_of_here(self) -> bool:
        """Whether an address or a directory is named, which are this machine's to use."""
        return self.url is not None or self.handed_out is not None


def measure(stack: Stack, outputs: dict[str, Any], options: RunOptions, say: Say | None = None) -> Report:
    """Run a profile against a deployed environment, and mark it in Grafana where there is one.

    The load comes from beside the stores wherever it can.
    """
    on_progress = say or _say
    began, slo = time.monotonic(), _slo(stack, options)
    way = _way(stack, outputs, slo, options)
    from_here = "it goes through the gateway" if way else None
    from_here = from_here or ("it is asked to" if options.is_of_here else why_from_here(stack))
    if options.then:
        baselines.require_alike(_kind(stack, slo, options, on_progress, is_here=from_here is not None), options.then)
    with terminable(), _no_verdict():
        if from_here is None:
            report = run_in_stack(
                stack,
                outputs,
                options.profile,
                slo,
                _tuned(stack),
                on_progress,
                protocol=options.protocol.value,
                keep=options.keep,
            )
        else:
            if not options.is_of_here and stack.settings.target is not TargetName.local:
                on_progress(f"! the load comes from this machine, and what lies between is measured too: {from_here}")
            report = run(
                _server(outputs, options.url),
                options.profile,
                slo,
                _tuned(stack),
                protocol=options.protocol.value,
                cache=stack.home.cache,
                locustfile=stack.root / "load" / "locustfile.py",
                on_progress=on_progress,
                handed_out=options.handed_out,
                keep=options.keep,
                way=way,
            )
    if options.then:
        compared = baselines.verdict(report.to_record(), options.then, slo.generator.max_lag_p95_ms)
        report = replace(report, compared=compared)
    mark_load(stack.home.watched / MARKS, report.to_json())
    if "grafana" in outputs:
        failed = annotate(outputs["grafana"], report, time.monotonic() - began)
        if failed:
            on_progress(f"{failed}.")
    return report


def _way(stack: Stack, outputs: dict[str, Any], slo: Slo, options: RunOptions) -> GatewayServer | None:
    """The gateway, for a profile that goes through it."""
    if slo.profile(options.profile).through != "gateway":
        return None
    if options.url:
        raise UserError(f"--url is an address of Qdrant, and {options.profile} goes through the gateway; leave it out.")
    return gateway_of(stack, outputs, options.profile)


def _workers(given: str | None) -> tuple[int | None, Path | None]:
    """How many workers, or where the job is handed out."""
    if given is None:
        return None, None
    if given.isdecimal():
        return int(given), None
    directory = Path(given)
    if not directory.is_dir():
        raise UserError(f"--workers {given} is neither a number nor a directory; name one that the machines share.")
    return None, directory.resolve()


def _slo(stack: Stack, options: RunOptions) -> Slo:
    """The targets, with as many workers in the profile as are asked for."""
    slo = load_slo(stack.root / stack.settings.slo.file)
    if options.processes is None:
        return slo
    own = slo.profile(options.profile).model_dump() | {"processes": options.processes}
    try:
        changed = Profile.model_validate(own)
    except ValidationError as error:
        raise UserError(f"--workers {options.processes}: {error.errors()[0]['msg'].lower()}.") from None
    return slo.model_copy(update={"profiles": {**slo.profiles, options.profile: changed}})


def _server(outputs: dict[str, Any], url: str | None = None) -> Server:
    where = outputs["qdrant"]
    return Server(url or where["url"], where["api_key"], where["grpc_url"].partition("://")[2], where.get("ca_cert"))


def _tuned(stack: Stack) -> CollectionSpec:
    shipped = next((spec for spec in stack.plan.collections if TUNED in spec.aliases), None)
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
