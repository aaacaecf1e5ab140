"""`plinth load ENV`: the load gate."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from plinth.cli.common import Env, Json, console, outputs_of, print_json, stack_of
from plinth.deploy import collection_specs
from plinth.engine import Stack
from plinth.errors import UserError
from plinth.load.gate import Server, run
from plinth.load.report import COLOURS, Report
from plinth.load.slo import load_slo

TUNED = "embeddings"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(load)


def load(
    env: Env,
    profile: Annotated[str, typer.Option(help="A profile of load/slo.yaml.")] = "smoke",
    url: Annotated[str | None, typer.Option(help="Another address of the same server, such as a port-forward.")] = None,
    json_out: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    html_out: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    json: Json = False,
) -> None:
    """Judge an environment under load: exit 0 pass, 1 fail, 3 void. Example: plinth load local --profile smoke"""
    stack = stack_of(env)
    found = outputs_of(stack)
    report = measure(stack, found, profile, url)
    _write(report, json_out, html_out)
    if json:
        print_json(report.to_json())
    else:
        show(report)
    raise typer.Exit(report.verdict.exit_code)


def measure(stack: Stack, outputs: dict[str, Any], profile: str, url: str | None = None) -> Report:
    """Run a profile against a deployed environment."""
    shipped = next((spec for spec in collection_specs(stack.settings, stack.root) if TUNED in spec.aliases), None)
    if shipped is None:
        raise UserError(f"The load gate tries the tuning of '{TUNED}', which plinth:collections leaves out; add it.")
    return run(
        Server(url or outputs["qdrant"]["url"], outputs["qdrant"]["api_key"]),
        profile,
        load_slo(stack.root / stack.settings.slo.file),
        shipped,
        cache=stack.home.cache,
        locustfile=stack.root / "load" / "locustfile.py",
        on_progress=lambda words: console.print(f"  {words}", highlight=False),
    )


def show(report: Report) -> None:
    """The table and the verdict."""
    console.print(report.table())
    colour = COLOURS[report.verdict.word]
    console.print(f"Verdict: [bold {colour}]{report.verdict.word}[/bold {colour}]")
    for reason in report.verdict.reasons:
        console.print(f"  {reason}.", highlight=False)


def _write(report: Report, json_out: Path | None, html_out: Path | None) -> None:
    texts = {json_out: jsonlib.dumps(report.to_json(), indent=2), html_out: report.to_html()}
    for path, text in texts.items():
        if path is None:
            continue
        try:
            path.write_text(text + "\n")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}; name another file.") from error
