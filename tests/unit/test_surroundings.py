"""What every program that Plinth starts gets of its surroundings: nothing of the caller's, wherever one is started."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

STARTS = {"run", "Popen", "call", "check_call", "check_output"}
# What starts a program with this process's own environment, and why it may.
EXCEPTIONS = {
    "plinth/deployment/automation.py": "Pulumi, which finds its backend and its plugins by it",
    "plinth/deployment/pulumi_command.py": "likewise",
    "plinth/gateway/processes.py": "a part of the gateway, which has the fixed one already",
    "plinth/embedded/engine_client.py": "a part of the engine, which has the fixed one already",
    "plinth/embedded/engine_process.py": "likewise",
    "plinth/programs/executables.py": "asked for its version by whoever runs Plinth, with PATH alone",
}


def starts() -> Iterator[tuple[str, str]]:
    """Each place that starts a program: the file with the line, and what it hands down."""
    for path in sorted((ROOT / "plinth").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            module = ast.unparse(node.func.value)
            if (module == "subprocess" and node.func.attr in STARTS) or (module == "os" and node.func.attr == "system"):
                handed = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "env"]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", handed[0] if handed else ""


def test_there_are_some() -> None:
    files = {where.partition(":")[0] for where, _ in starts()}
    assert {
        "plinth/system/managed_process.py",
        "plinth/targets/local/supervisor.py",
        "plinth/backup/repository/restic.py",
    } <= files
    assert files >= EXCEPTIONS.keys()


@pytest.mark.parametrize(
    ("where", "handed"),
    [pytest.param(*start, id=start[0]) for start in starts() if start[0].partition(":")[0] not in EXCEPTIONS],
)
def test_a_program_gets_a_fixed_environment(where: str, handed: str) -> None:
    assert handed, f"{where} hands its caller's environment down"
    assert "os.environ" not in handed, where
