"""scripts/bootstrap with programs of the test's own: which installer it takes, and what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROTO = "proto/plinth/vectors/v1/vectors.proto"
# Writes down what it is called with; whatever a case names fails, and is loud about it.
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  *"version_info < "*|*"import plinth"*|*"import pip"*) exit 0 ;;
  *base_prefix*) echo "/usr (3, 11, 2)"; exit 0 ;;
  "python3 -m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv ;;
  "pulumi version") echo v3.259.0 ;;
  "go build"*) echo "go: downloading a module" >&2; mkdir -p ../../.plinth/bin; cp "$0" ../../.plinth/bin/pulumi ;;
  "python -m plinth.targets.local.tools") echo "Qdrant: a line." ;;
  *"config get"*) echo "https://mirror.test/simple" ;;
  "uv pip install"*) env | grep -E "^(UV|SSL)_" >>"$CALLS" ;;
  "dpkg-query"*) for name in $*; do printf 'installed=%s ' "$name"; done; exit 0 ;;
esac
for failing in $FAILING; do
  case "$(basename "$0") $*" in *$failing*) echo "much that a tool prints" >&2; exit 1 ;; esac
done
"""


class Project:
    """A directory with the script and stubs of what it calls."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.bin = root, root / "calls", root / "bin"
        sources = ("pyproject.toml", "setup.py", PROTO)
        for name in ("scripts/bootstrap", "scripts/pulumi/go.mod", "config/images.yaml", *sources):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        accounts = root / "scripts" / "accounts"
        accounts.write_text("#!/bin/sh\n")
        accounts.chmod(0o755)
        for name in ("requirements.lock", "requirements-uv.lock"):
            (root / name).write_text("a==1\nb==2\n")
        self.bin.mkdir()
        for name in ("python3", "dpkg-query", "go", "apt-get"):
            self.add(name)

    def add(self, name: str) -> None:
        (self.bin / name).write_text(STUB)
        (self.bin / name).chmod(0o755)

    def run(self, *failing: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "CALLS": str(self.calls),
            "FAILING": " ".join(failing),
            "HOME": str(self.root),
            **variables,
        }
        self.calls.write_text("")
        return subprocess.run(
            ["bash", str(self.root / "scripts" / "bootstrap")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def called(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.calls.read_text().splitlines())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.add("pulumi")
    return made


INSTALLERS = {
    "uv": ((), "uv"),
    "no uv in the index": (("requirements-uv.lock",), "pip"),
    "uv that reaches no index": (("uv pip install",), "pip"),
}


@pytest.mark.parametrize(("failing", "installer"), INSTALLERS.values(), ids=INSTALLERS)
def test_packages_come_by_uv_and_else_by_pip_each_by_its_hash(
    project: Project, failing: tuple[str, ...], installer: str
) -> None:
    done = project.run(*(word.replace(" ", "?") for word in failing))
    assert done.returncode == 0, done.stderr
    assert f"installed by {installer} in" in done.stdout
    assert project.called("uv pip install", "--require-hashes") == (failing[:1] != ("requirements-uv.lock",))
    assert project.called("-m pip install", "--require-hashes -r requirements.lock") == (installer == "pip")
    assert project.called("--no-deps", "-e .")
    assert "much that a tool prints" not in done.stdout + done.stderr


def test_uv_is_told_what_pip_and_this_machine_go_by(project: Project) -> None:
    """It knows neither pip's settings nor the machine's own authorities, and fails in silence without them."""
    project.run(PIP_FIND_LINKS="/wheels", PIP_CERT="/etc/ca.pem")
    for variable in (
        "UV_SYSTEM_CERTS=true",
        "UV_DEFAULT_INDEX=https://mirror.test/simple",
        "UV_FIND_LINKS=/wheels",
        "SSL_CERT_FILE=/etc/ca.pem",
    ):
        assert project.called(variable), variable


def test_packages_that_cannot_be_had_are_a_sentence_with_the_last_words_of_the_tool(project: Project) -> None:
    done = project.run("requirements")
    assert done.returncode == 1
    assert "is a package index within reach?" in done.stderr
    assert "much that a tool prints" in done.stderr
    assert not (project.root / ".venv" / ".bootstrapped").exists()


def test_a_second_run_installs_nothing(project: Project) -> None:
    project.run()
    done = project.run()
    assert "Python packages: there." in done.stdout
    assert not project.called("install")
    # A line for each step, and the sum.
    assert len(done.stdout.strip().splitlines()) == 5


@pytest.mark.parametrize("changed", ["setup.py", PROTO, "requirements.lock"])
def test_what_an_installation_is_made_of_is_installed_again_where_it_changed(project: Project, changed: str) -> None:
    project.run()
    with (project.root / changed).open("a") as file:
        file.write("\n")
    project.run()
    assert project.called("--no-deps", "-e .")


def test_a_named_python_makes_the_environment_of_another_again(project: Project) -> None:
    project.run()
    stamp = project.root / ".venv" / "of-the-first"
    stamp.touch()
    project.run(PYTHON=str(project.bin / "python3"))
    assert stamp.exists()
    other = project.root / ".venv" / "bin" / "python"
    other.write_text(other.read_text().replace("(3, 11, 2)", "(3, 13, 0)"))
    done = project.run(PYTHON=str(project.bin / "python3"))
    assert "of another Python than" in done.stdout
    assert not stamp.exists()


def test_what_go_prints_is_not_shown_unless_it_fails(project: Project) -> None:
    (project.bin / "pulumi").unlink()
    done = project.run("plinth.targets.downloads")
    assert done.returncode == 0, done.stderr
    assert "built into .plinth/bin" in done.stdout
    assert "go: downloading" not in done.stdout + done.stderr
    shutil.rmtree(project.root / ".plinth")
    failed = project.run("plinth.targets.downloads", "go?build")
    assert failed.returncode == 1
    assert "go: downloading" in failed.stderr


@pytest.mark.parametrize("name", ["it's here", 'a "quoted" one', "50% $HOME `id`", "b #c;d"])
def test_the_shim_of_pulumi_finds_its_python_in_any_directory(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path / name)
    project.add("pulumi")
    assert project.run().returncode == 0
    python = project.root / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "ran $*"\n')
    shim = project.root / ".venv" / "bin" / "pulumi-resource-pulumi-python"
    ran = subprocess.run([str(shim), "x y"], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert ran.stdout == "ran -P -u -m pulumi.dynamic x y\n"
