"""Nothing that was only downloaded is run: a mirror on loopback gives what an archive must not be."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from plinth.errors import UserError
from plinth.targets import downloads
from plinth.targets.downloads import MIRROR, Patience, PinnedTool, pinned, release_of, this_platform
from tests.conftest import ROOT

NAME = f"tool-v1.2.3-{this_platform()}.tar.gz"
GOOD = b"#!/bin/sh\necho the tool\n"
QUICK = Patience(answer_s=2, stall_s=2, whole_s=3)
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Mirror(http.server.ThreadingHTTPServer):
    daemon_threads = True
    requests = 0
    answer: Answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/releases"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.requests += 1
        self.server.answer(self)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def archive(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode, info.uid = len(member[1]), 0o4777, 1234
                made.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def gives(content: bytes, status: int = 200) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def pins(content: bytes, **changed: object) -> PinnedTool:
    digest = hashlib.sha256(content).hexdigest()
    return PinnedTool.model_validate(
        {
            "from": "http://127.0.0.1:1",
            "archive": "tool-v{version}-{platform}.tar.gz",
            "member": "tool/tool",
            "platforms": {this_platform(): {"version": "1.2.3", "sha256": digest}},
            **changed,
        }
    )


def install(tool: str, pins: PinnedTool, target: Path, mirror: str | None, patience: Patience) -> str:
    return downloads.install(pins, release_of(tool, pins), target, mirror, patience)


def nothing_made(directory: Path) -> bool:
    return not directory.exists() or not list(directory.iterdir())


def test_the_named_member_alone_is_installed_and_is_an_ordinary_file(mirror: Mirror, tmp_path: Path) -> None:
    content = archive(("tool/other", b"x"), ("tool/tool", GOOD), ("../escaped", b"x"))
    mirror.answer = gives(content)
    target = tmp_path / "bin"
    target.mkdir()
    (target / "tool").symlink_to(tmp_path / "victim")
    message = install("tool", pins(content), target, mirror.url, QUICK)
    assert "1.2.3" in message
    assert [path.name for path in target.iterdir()] == ["tool"]
    assert (target / "tool").read_bytes() == GOOD
    assert not (target / "tool").is_symlink()
    assert (target / "tool").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    "content",
    [
        archive(("../tool/tool", GOOD)),
        archive(("/tool/tool", GOOD)),
        archive(link("tool/tool", "/bin/sh")),
        archive(link("tool/tool", "../../escaped", tarfile.LNKTYPE)),
        archive(link("tool", "/tmp"), link("tool/tool", "x")),
        archive(("tool/tool/tool", GOOD)),
        archive(),
        b"no archive",
        archive(("tool/tool", GOOD * 10000))[:-200],
    ],
    ids=["parent", "absolute", "link", "hard link", "directory is a link", "deeper", "empty", "no archive", "cut"],
)
def test_an_archive_without_the_plain_member_installs_nothing(mirror: Mirror, tmp_path: Path, content: bytes) -> None:
    mirror.answer = gives(content)
    with pytest.raises(UserError, match="archive"):
        install("tool", pins(content), tmp_path / "bin", mirror.url, QUICK)
    assert nothing_made(tmp_path / "bin")


def test_another_digest_is_not_opened(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("it was opened"))
    mirror.answer = gives(b"another")
    with pytest.raises(UserError, match=r"was expected; it is not opened"):
        install("tool", pins(b"the one"), tmp_path / "bin", mirror.url, QUICK)
    assert nothing_made(tmp_path / "bin")


def cut_short(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x")
    handler.close_connection = True


def dribbles(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.2)


def silent(_: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(20)


def redirects_for_ever(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path + "x")
    handler.end_headers()


def redirects_to_a_file(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "file:///etc/passwd")
    handler.end_headers()


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


@pytest.mark.parametrize(
    "answer",
    [gives(b"", 404), gives(b"", 500), cut_short, dribbles, silent, redirects_for_ever, redirects_to_a_file, endless],
)
def test_what_does_not_come_whole_is_given_up_in_a_sentence(mirror: Mirror, tmp_path: Path, answer: Answer) -> None:
    mirror.answer = answer
    with pytest.raises(UserError) as caught:
        install("tool", pins(b"the one", bytes_max=1 << 20), tmp_path / "bin", mirror.url, QUICK)
    assert NAME in str(caught.value)
    assert caught.value.exit_code == 1
    assert nothing_made(tmp_path / "bin")


def test_a_redirect_leads_to_what_the_digest_names(mirror: Mirror, tmp_path: Path) -> None:
    content = archive(("tool/tool", GOOD))

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/moved"):
            gives(content)(handler)
        else:
            handler.send_response(302)
            handler.send_header("Location", "/moved")
            handler.end_headers()

    mirror.answer = answer
    install("tool", pins(content), tmp_path / "bin", mirror.url, QUICK)
    assert (tmp_path / "bin/tool").read_bytes() == GOOD


def test_without_a_digest_for_this_platform_nobody_is_asked(mirror: Mirror, tmp_path: Path) -> None:
    mirror.answer = gives(b"")
    others = {"plan9-mips": {"version": "1.2.3", "sha256": "0" * 64}}
    with pytest.raises(UserError, match="it is not downloaded"):
        install("tool", pins(b"", platforms=others), tmp_path / "bin", mirror.url, QUICK)
    assert mirror.requests == 0


def test_a_machine_whose_names_are_looked_up_for_ever_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        given_up.wait(60)
        raise OSError("nobody")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(UserError, match="did not answer within 2 s"):
        install("tool", pins(b""), tmp_path / "bin", "http://mirror.example", QUICK)
    assert not given_up.is_set()
    given_up.set()
    assert nothing_made(tmp_path / "bin")


def test_the_command_takes_a_mirror_and_fails_with_one_line(mirror: Mirror, tmp_path: Path) -> None:
    content = archive(("tool/tool", GOOD))
    mirror.answer = gives(content)
    (tmp_path / "config").mkdir()
    described = pins(content).model_dump(mode="json", by_alias=True)
    (tmp_path / "config/images.yaml").write_text(yaml.safe_dump({"images": {}, "downloads": {"tool": described}}))

    def run(base: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "plinth.targets.downloads", "tool", "bin dir"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), MIRROR: base},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run(mirror.url).returncode == 0
    assert subprocess.run([tmp_path / "bin dir/tool"], capture_output=True, check=True).stdout == b"the tool\n"
    mirror.answer = gives(b"\x1b[2J", 200)
    refused = run(mirror.url)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr


def test_the_pins_are_whole_and_each_version_is_one_that_bootstrap_takes() -> None:
    tool_pins = pinned(ROOT, "pulumi")
    assert set(tool_pins.platforms) == {"linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"}
    assert tool_pins.base.startswith("https://")
    least = re.search(r"at_least (\d+\.\d+\.\d+)", (ROOT / "scripts/bootstrap").read_text())
    assert least
    for pin in tool_pins.platforms.values():
        assert [int(part) for part in pin.version.split(".")] >= [int(part) for part in least[1].split(".")]


def test_no_script_is_fetched_and_run() -> None:
    for path in (*(ROOT / "scripts").rglob("*"), ROOT / "Makefile", *(ROOT / "containers").rglob("*")):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert not re.search(r"\b(curl|wget)\b|PulumiCommand\.install|install\.sh", text), path
    for path in (ROOT / "plinth").rglob("*.py"):
        assert "PulumiCommand.install" not in path.read_text(), path
