"""The reading of a trace: it finds what root does to paths that a service's account may change, and nothing else."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts import needs_accounts
from tests.traced import command, events, needs_strace, touched, unsafe

pytestmark = [needs_accounts, needs_strace]


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plinth traced-") as directory:
        Path(directory).chmod(0o711)
        (Path(directory) / "given").mkdir()
        os.chown(Path(directory) / "given", pwd.getpwnam("plinth-redis").pw_uid, 0)
        yield Path(directory)


def traced(place: Path, program: str) -> tuple[set[str], set[str]]:
    trace = place / "trace"
    before = f"import os, subprocess, tempfile\nos.chdir({str(place)!r})\ndirectory = os.open('given', os.O_RDONLY)\n"
    subprocess.run(command(trace, sys.executable, "-c", before + program), check=True)
    seen = events(trace.read_text().splitlines())
    found = {line.partition(": ")[0].removeprefix(f"{place}/") for line in unsafe(seen)}
    return found, {str(path.relative_to(place)) for path in touched(seen) if path.is_relative_to(place)}


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("open('given/new file', 'w').close()", ["given/new file"]),
        ("os.close(os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=directory))", ["given/x"]),
        ("os.mkdir('given/d'); os.mkdir('given/d/e')", ["given/d", "given/d/e"]),
        ("open('own', 'w').close(); os.rename('own', 'given/own')", ["given/own"]),
        ("open('own', 'w').close(); os.chown('own', 0, 0); os.chmod('own', 0o600)", []),
        ("os.symlink('/etc', 'x', dir_fd=directory); os.unlink('given/x')", ["given/x"]),
        ("subprocess.run(['sh', '-c', 'echo x >given/x'])", ["given/x"]),
        ("os.path.exists('given/x'); os.listdir(directory)", []),
        ("tempfile.TemporaryDirectory().cleanup()", []),
        ("open('/tmp/foreseen', 'w').close(); os.unlink('/tmp/foreseen')", ["/tmp/foreseen"]),
        # As the account itself.
        ("os.setuid(UID); open('given/x', 'w').close()", []),
        ("os.fork() or (os.setuid(UID), open('given/x', 'w')); os.getuid() or open('given/y', 'w')", ["given/y"]),
    ],
)  # fmt: skip
def test_what_root_writes_where_a_service_may_is_found(place: Path, program: str, expected: list[str]) -> None:
    program = program.replace("UID", str(pwd.getpwnam("plinth-redis").pw_uid))
    assert traced(place, program)[0] == set(expected)


def test_what_root_looks_at_there_is_found_too(place: Path) -> None:
    assert traced(place, "os.path.exists('given/x'); os.path.exists('given/y z/w')")[1] == {"given/x", "given/y z/w"}
