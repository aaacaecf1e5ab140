"""What bootstrap downloads for the local target: by its digest, from a mirror on loopback, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest
import yaml

from plinth import paths as homes
from plinth.programs import executables
from plinth.programs.qdrant import program
from plinth.targets.downloads import MIRROR, Patience, pinned, this_platform
from plinth.targets.images import pins
from plinth.targets.local.tools import TOOLS, Tool, provide
from tests.conftest import ROOT
from tests.unit.test_downloads import Answer, Mirror, archive, cut_short, gives, link, mirror, silent

__all__ = ["mirror"]

QUICK = Patience(answer_s=2, stall_s=2, whole_s=3)
QDRANT, GRAFANA = TOOLS
SERVER = b"#!/bin/sh\necho qdrant 1.18.3\n"
TREE = (("grafana-v1.2.3/bin/grafana", b"#!/bin/sh\n"), ("grafana-v1.2.3/conf/defaults.ini", b"[x]\n"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(homes, "OUTSIDE", tmp_path / "outside")
    root = tmp_path / "a project"
    (root / "config").mkdir(parents=True)
    return root


def environment(mirror: Mirror, **more: str) -> dict[str, str]:
    return {"PATH": "/nowhere", MIRROR: mirror.url, **more}


def pin(root: Path, content: bytes, version: str = "1.2.3") -> None:
    """The pins of the project, of this content."""
    document = yaml.safe_load((ROOT / "config/images.yaml").read_text())
    for name in ("qdrant", "grafana"):
        release = {"version": version, "sha256": hashlib.sha256(content).hexdigest(), "archive": f"{name}.tar.gz"}
        document["downloads"][name]["platforms"] = {this_platform(): release}
    (root / "config/images.yaml").write_text(yaml.safe_dump(document))


def test_a_server_is_installed_from_a_mirror_and_then_it_is_there(
    mirror: Mirror, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(("qdrant", SERVER))
    pin(project, content)
    mirror.answer = gives(content)
    before = os.umask(0o077)
    try:
        line = provide(project, QDRANT, environment(mirror), QUICK)
    finally:
        os.umask(before)
    assert line == (
        f"Qdrant: 1.2.3 installed from {mirror.url}/qdrant.tar.gz, whose SHA-256 is "
        f"{hashlib.sha256(content).hexdigest()}."
    )
    monkeypatch.setattr(executables, "CLONE", project)
    server = executables.find(program("server"), environment(mirror))
    assert server
    path = server.argv[0]
    assert Path(path).read_bytes() == SERVER
    for each in (Path(path).resolve(), Path(path).resolve().parent, Path(path).parent):
        assert each.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) == stat.S_IROTH | stat.S_IXOTH, each
    assert provide(project, QDRANT, environment(mirror), QUICK) == f"Qdrant: {path} (1.2.3)."
    assert mirror.requests == 1


def test_what_is_on_the_machine_is_not_replaced(mirror: Mirror, project: Path, tmp_path: Path) -> None:
    own = tmp_path / "own" / "qdrant"
    own.parent.mkdir()
    own.write_bytes(SERVER)
    own.chmod(0o755)
    pin(project, b"")
    assert provide(project, QDRANT, environment(mirror, PATH=str(own.parent)), QUICK) == f"Qdrant: {own}."
    assert provide(project, QDRANT, environment(mirror, PLINTH_QDRANT=str(own)), QUICK) == f"Qdrant: {own}."
    assert mirror.requests == 0


def test_a_new_pin_takes_the_place_of_the_old_version(mirror: Mirror, project: Path) -> None:
    for version in ("1.2.3", "1.2.4"):
        content = archive(("qdrant", version.encode()))
        pin(project, content, version)
        mirror.answer = gives(content)
        assert f"{version} installed" in provide(project, QDRANT, environment(mirror), QUICK)
        assert (homes.tools_of(project) / "qdrant").read_bytes() == version.encode()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize(
    "answer",
    [gives(b"another"), gives(b"", 404), gives(b"", 503), cut_short, silent],
    ids=["digest", "404", "503", "cut", "silent"],
)
def test_what_cannot_be_had_is_one_line_and_nothing_of_it_stays(
    mirror: Mirror, project: Path, tool: Tool, answer: Answer
) -> None:
    pin(project, archive(("qdrant", SERVER)))
    mirror.answer = answer
    began = time.monotonic()
    line = provide(project, tool, environment(mirror), QUICK)
    assert time.monotonic() - began < QUICK.whole_s + QUICK.stall_s
    assert line.startswith(f"{tool.title}: ")
    assert line.endswith(f"; {tool.without}.")
    assert "\n" not in line
    assert not list(homes.tools_of(project).iterdir())


def test_a_machine_without_a_digest_asks_nobody(mirror: Mirror, project: Path) -> None:
    document = yaml.safe_load((ROOT / "config/images.yaml").read_text())
    document["downloads"]["qdrant"]["platforms"] = {}
    (project / "config/images.yaml").write_text(yaml.safe_dump(document))
    assert "is pinned, so it is not downloaded; the embedded" in provide(project, QDRANT, environment(mirror), QUICK)
    assert mirror.requests == 0


def test_grafana_is_unpacked_as_a_whole_and_reached_by_its_link(mirror: Mirror, project: Path) -> None:
    content = archive(*TREE)
    pin(project, content)
    mirror.answer = gives(content)
    assert "1.2.3 installed" in provide(project, GRAFANA, environment(mirror), QUICK)
    program = (homes.tools_of(project) / "grafana").resolve()
    assert (program.parent.parent / "conf/defaults.ini").read_bytes() == b"[x]\n"
    assert program.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "content",
    [
        archive(*TREE, link("grafana-v1.2.3/bin/x", "/etc/passwd")),
        archive(*TREE, ("../escaped", b"x")),
        archive(*TREE, ("/tmp/escaped", b"x")),
        archive(TREE[1]),
        archive(("grafana-v9/bin/grafana", b"x")),
    ],
    ids=["link", "parent", "absolute", "no executable", "other version"],
)
def test_a_tree_that_is_not_plain_is_not_installed(mirror: Mirror, project: Path, content: bytes) -> None:
    pin(project, content)
    mirror.answer = gives(content)
    assert provide(project, GRAFANA, environment(mirror), QUICK).endswith(f"; {GRAFANA.without}.")
    assert not list(homes.tools_of(project).iterdir())
    assert not list(project.parent.rglob("escaped"))


def test_the_version_that_is_downloaded_is_the_one_of_the_settings_and_images() -> None:
    releases = pinned(ROOT, "qdrant").platforms
    assert set(releases) == {"linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"}
    for release in releases.values():
        assert f":v{release.version}" in pins(ROOT)["qdrant"]
        assert release.archive
