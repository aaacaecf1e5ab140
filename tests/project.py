"""A project directory with one environment `t`, and the command line in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.paths import home
from plinth.qdrant.client import Qdrant
from plinth.settings.plaintext_secrets import in_the_clear
from tests.conftest import ROOT

BUILT = ROOT / ".plinth" / "bin"
OURS = ("PULUMI_", "PROBE_", "ENABLE_")
# Whether it serves is asked, and not how fast a machine that runs other tests beside it answers.
PATIENT = {"PROBE_TIMEOUT_MS": "5000"}
needs_pulumi = pytest.mark.skipif(
    shutil.which("pulumi") is None and not (BUILT / "pulumi").exists(), reason="no pulumi binary: run `make bootstrap`"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus on this machine: run `make bootstrap`"
)


class Environment:
    """The files of a project with the settings of one environment; what a person would type runs in it."""

    def __init__(self, root: Path, settings: dict[str, Any], env: str = "t", **variables: str) -> None:
        self.root, self.settings, self.env, self.variables = root, settings, env, variables
        self.salt: dict[str, str] = {}
        self.printed: list[str] = []
        for name in ("charts", "config", "containers", "monitoring", "load"):
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / "Pulumi.yaml", root)
        (root / "stacks").mkdir()
        self.save()

    @property
    def file(self) -> Path:
        return self.root / "stacks" / f"Pulumi.{self.env}.yaml"

    def save(self) -> None:
        """Write the settings, and encrypt what is secret of them as a person would."""
        self.write()
        secrets = list(in_the_clear(self.settings))
        for key in secrets:
            self.plinth("secret", self.env, key, said=at(self.settings, key))
        if secrets:
            self.salt = yaml.safe_load(self.file.read_text())
            self.settings = self.salt.pop("config")

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump({"config": self.settings, **self.salt}))

    def plinth(self, *arguments: str, expect: int | None = 0, said: str = "", **variables: str) -> str:
        """Run a command, with this said to it; its exit code must be the expected one, and no traceback may show."""
        answer = self.run("from plinth.cli import main; main()", *arguments, expect=expect, said=said, **variables)
        assert "Traceback" not in answer, answer
        if "--show-secrets" not in arguments:
            self.printed.append(answer)
        return answer

    def run(self, program: str, *arguments: str, expect: int | None = 0, said: str = "", **variables: str) -> str:
        """Run a Python program in the project; None expects nothing of its exit code."""
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=self.root,
            env={**self.surroundings(), **variables},
            input=said,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        answer = done.stdout + done.stderr
        assert expect is None or done.returncode == expect, answer
        return answer

    def surroundings(self) -> dict[str, str]:
        """The environment variables that commands get."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**inherited, "PATH": f"{BUILT}{os.pathsep}{os.environ['PATH']}", **self.variables}

    def up(self, expect: int = 0, **variables: str) -> str:
        return self.plinth("up", self.env, "--no-verify", expect=expect, **variables)

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.plinth(*arguments, "--json", expect=expect))

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json("outputs", self.env, "--show-secrets")
        return found

    def qdrant(self) -> Qdrant:
        where = self.outputs()["qdrant"]
        return Qdrant(where["url"], where["api_key"])

    def wait_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.plinth("status", self.env, "--no-cache", **PATIENT)
                return
            except AssertionError:
                if time.monotonic() > end:
                    raise

    def printed_secrets(self) -> list[str]:
        """The names of the generated secrets that a command has printed without being asked for them."""
        generated: dict[str, str] = json.loads(home(self.root, self.env).secrets.read_text())
        assert generated
        assert self.printed
        return [name for name, value in generated.items() if any(value in text for text in self.printed)]

    def states(self) -> str:
        """Everything that Pulumi's backend holds, as text."""
        return "".join(path.read_text() for path in (self.root / ".plinth" / "backend").rglob("*.json*"))


def at(settings: dict[str, Any], key: str) -> Any:
    """A setting by its key, such as `postgres.databases[0].password`."""
    first, *rest = key.replace("[", ".").replace("]", "").split(".")
    found = settings[f"plinth:{first}"]
    for word in rest:
        found = found[int(word) if isinstance(found, list) else word]
    return found
