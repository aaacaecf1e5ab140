"""The protocol's file: its style, what a change would break, and that an installation generates its Python."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from plinth.targets.docker import plinth_image
from tests.conftest import ROOT

PROTO = ROOT / "proto"
BUF_VERSION = "1.75.0"
BUF_MACHINES = {"x86_64": "linux-x64", "aarch64": "linux-aarch64"}


@pytest.fixture(scope="session")
def buf() -> Path:
    """buf of the PATH, or of npm, which is asked for it once a machine."""
    if on_path := shutil.which("buf"):
        return Path(on_path)
    machine = BUF_MACHINES.get(platform.machine())
    if machine is None or shutil.which("npm") is None:
        pytest.skip("no buf on PATH, and no npm to get it with")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plinth" / f"buf-{BUF_VERSION}"
    binary = cache / "node_modules" / "@bufbuild" / f"buf-{machine}" / "bin" / "buf"
    if not binary.exists():
        package = f"@bufbuild/buf-{machine}@{BUF_VERSION}"
        arguments = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(cache), package]
        installed = subprocess.run(["npm", "install", *arguments], capture_output=True, timeout=120, check=False)
        if installed.returncode != 0:
            pytest.skip("npm could not get buf")
    return binary


def run(buf: Path, *arguments: str, directory: Path = PROTO) -> subprocess.CompletedProcess[str]:
    return subprocess.run([buf, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def test_buf_finds_nothing_to_say_of_the_file(buf: Path) -> None:
    lint = run(buf, "lint")
    assert (lint.returncode, lint.stdout) == (0, "")
    layout = run(buf, "format", "--diff", "--exit-code")
    assert layout.returncode == 0, layout.stdout


def test_the_file_breaks_no_client_of_the_baseline(buf: Path) -> None:
    broken = run(buf, "breaking", "--against", "baseline.txtpb")
    assert (broken.returncode, broken.stdout) == (0, "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("uint32 upserted = 1;", "uint32 upserted = 2;"),
        ("optional uint32 top_k = 4;", "optional uint64 top_k = 4;"),
        ("  rpc Get(GetRequest) returns (GetResponse);\n", ""),
        ("DISTANCE_DOT = 3;", "DISTANCE_DOTS = 3;"),
    ],
)
def test_a_change_that_breaks_clients_is_found(buf: Path, tmp_path: Path, before: str, after: str) -> None:
    changed = tmp_path / "proto"
    shutil.copytree(PROTO, changed)
    path = changed / "plinth" / "vectors" / "v1" / "vectors.proto"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    assert run(buf, "breaking", "--against", "baseline.txtpb", directory=changed).returncode != 0


def test_a_wheel_holds_what_is_generated(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(PROTO, tmp_path / "proto")
    shutil.copytree(ROOT / "plinth" / "vectors", tmp_path / "plinth" / "vectors", ignore=lambda *_: {"__pycache__"})
    shutil.copy(ROOT / "plinth" / "__init__.py", tmp_path / "plinth")
    for generated in (tmp_path / "plinth").rglob("*_pb2*"):
        generated.unlink()
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "."]
    subprocess.run([sys.executable, "-m", *build], cwd=tmp_path, check=True, timeout=120)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    stubs = {f"plinth/vectors/v1/{name}" for name in ("vectors_pb2.py", "vectors_pb2.pyi", "vectors_pb2_grpc.py")}
    assert stubs <= names
    assert not list((tmp_path / "plinth").rglob("*_pb2*"))


def test_plinths_own_image_gets_what_is_generated() -> None:
    assert "package/plinth/vectors/v1/vectors_pb2.py" in plinth_image.sources(ROOT)
