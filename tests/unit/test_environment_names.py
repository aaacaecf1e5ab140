"""The names of environments: none is that of a directory of Plinth's own, and no `down` deletes data."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plinth import cli
from plinth.deployment.automation import forget
from plinth.paths import RESERVED, Home
from tests.conftest import ROOT

COMMANDS = ("up", "preview", "refresh", "outputs", "status", "down --yes", "backup list", "load", "collections diff")


def project(root: Path, env: str) -> None:
    (root / "stacks").mkdir()
    (root / "Pulumi.yaml").write_text("name: plinth\n")
    (root / "stacks" / f"Pulumi.{env}.yaml").write_text("config:\n  plinth:target: local\n")


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["plinth", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("env", sorted(RESERVED | {"Backend", "PULUMI"}))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_of_plinths_own_is_refused_by_every_command_and_its_data_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], env: str, command: str
) -> None:
    project(tmp_path, env)
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / ".plinth" / env / "data" / "qdrant" / "segment"
    kept.parent.mkdir(parents=True)
    kept.write_text("points")
    name, *options = command.split()
    words = [name, options[0], env] if options and not options[0].startswith("-") else [name, env, *options]
    assert run(words, monkeypatch) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"An environment cannot be named '{env}'" in printed
    assert f".plinth/{env}/data" in printed.replace(" ", "")
    assert kept.read_text() == "points"


@pytest.mark.parametrize("env", ["..", ".", ".hidden", "a/b", "../x", "", "a b", "-x", "a\nb", "é", "a" * 101])
def test_a_name_that_is_no_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], env: str
) -> None:
    project(tmp_path, "x")
    monkeypatch.chdir(tmp_path)
    assert run(["preview", "--", env], monkeypatch) == 2
    assert "is no name of an environment" in " ".join(capsys.readouterr().err.split())


def test_every_directory_that_plinth_keeps_beside_the_environments_is_reserved() -> None:
    place = Home(Path("/p/.plinth"), Path("/p/.plinth/x"))
    own = {getattr(place, name) for name, value in vars(Home).items() if isinstance(value, property) and name != "env"}
    beside = {path.relative_to(place.base).parts[0] for path in own if isinstance(path, Path)} - {"x"}
    sources = [*(ROOT / "plinth").rglob("*.py"), *(path for path in (ROOT / "scripts").iterdir() if path.is_file())]
    named = {
        name
        for path in [*sources, ROOT / "Makefile"]
        for name in re.findall(r"\.plinth[\"']?(?:/| / \")([a-z][\w-]*)", path.read_text())
    }
    assert beside <= RESERVED
    assert named - {"local"} <= RESERVED


def test_the_last_down_deletes_no_data_of_a_name_that_was_once_allowed(tmp_path: Path) -> None:
    place = Home(tmp_path / ".plinth", tmp_path / ".plinth" / "x")
    stack: Any = SimpleNamespace(
        env="x", home=place, automation=SimpleNamespace(workspace=SimpleNamespace(remove_stack=lambda _: None))
    )
    for own in (place.engine, place.backend, place.pulumi):
        own.mkdir(parents=True)
        (own / "file").touch()
    data = place.backend / "data" / "postgres"
    data.mkdir(parents=True)
    forget(stack)
    assert data.exists()
    assert not place.engine.exists()
    assert not place.pulumi.exists()
