"""What a command imports before it does anything: no more than it needs, whatever the others need."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

from plinth.cli import COMMANDS, PlinthCommands, app
from tests.conftest import ROOT

# Each takes longer to import than a command may that only reads and asks.
HEAVY = {
    "docker",
    "grpc",
    "hdrh",
    "jinja2",
    "kubernetes",
    "locust",
    "matplotlib",
    "neo4j",
    "numpy",
    "pandas",
    "psycopg",
    "pulumi",
    "pulumi_docker",
    "pulumi_kubernetes",
    "pyarrow",
    "qdrant_client",
    "redis",
    "supervisor",
}
READING = (
    "plinth.cli.status",
    "plinth.cli.outputs",
    "plinth.cli.collections",
    "plinth.cli.schema",
    "plinth.cli.unlock",
)


def imported_by(program: str) -> set[str]:
    """The modules that a program has at its end; what it prints itself is not looked at."""
    script = f"import sys\ntry:\n    {program}\nexcept SystemExit:\n    pass\nprint('\\n' + ' '.join(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(printed.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_the_list_of_commands_imports_none(arguments: list[str]) -> None:
    loaded = imported_by(f"sys.argv = ['plinth', *{arguments}]; from plinth.cli import main; main()")
    assert "plinth.cli" in loaded
    assert not {"pydantic", "yaml", "httpx", "cryptography", "plinth.settings", *HEAVY} & loaded


def test_the_versions_import_nothing_that_deploys_or_measures() -> None:
    loaded = imported_by("sys.argv = ['plinth', '--version']; from plinth.cli import main; main()")
    assert "plinth.cli.versions" in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize("module", READING)
def test_what_reads_and_asks_imports_nothing_that_deploys_or_measures(module: str) -> None:
    loaded = imported_by(f"import {module}")
    assert module in loaded
    assert not HEAVY & loaded


def test_a_deploy_imports_nothing_that_measures() -> None:
    loaded = imported_by("import plinth.cli.stack")
    assert "pulumi" in loaded
    assert not {"locust", "matplotlib", "numpy", "kubernetes", "pulumi_kubernetes", "qdrant_client"} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_the_first_of_its_own_help(name: str) -> None:
    command = get_command(app)
    assert isinstance(command, PlinthCommands)
    first = (command.load(name).help or "").split("\n\n")[0]
    assert " ".join(first.split()).partition(" Example: ")[0] == COMMANDS[name].summary


def test_every_module_of_commands_is_in_the_list() -> None:
    sources = (ROOT / "plinth" / "cli").glob("*.py")
    registering = {path.stem for path in sources if "\ndef register(" in path.read_text()}
    assert registering == {entry.module for entry in COMMANDS.values()}
