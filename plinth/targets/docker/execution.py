"""A command in a running container: its output as it comes, its exit status, and its end on a Ctrl-C."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from plinth.errors import UserError
from plinth.system.streamed_command import LineBuffer, OnLine, ended_by_signals
from plinth.targets.docker.engine_api import Daemon

# Marks a command among the processes of its container: the engine has no call that ends one.
MARK = "PLINTH_EXECUTION"
_HEADER, _STDERR = 8, 2
_LARGEST_FILE = 1 << 20
# Children of the command lack the mark, and are the command's to end. Python is in every image that runs our commands.
_TERMINATE = """
import os, pathlib, signal, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if sys.argv[1].encode() in (process / "environ").read_bytes().split(bytes(1)):
            os.kill(int(process.name), signal.SIGTERM)
    except OSError:
        pass
"""


def execute(daemon: Daemon, container: str, argv: Sequence[str], on_line: OnLine) -> int:
    """Run a command in a container to its end; its exit status, or a signal's (130, 143) where one ended it."""
    mark = f"{MARK}={secrets.token_hex(16)}"
    identity = _create(daemon, container, argv, [mark])

    def end() -> None:
        with suppress(UserError), Daemon(daemon.host) as another:
            ended = _create(another, container, ["python3", "-c", _TERMINATE, mark], [])
            with another.stream("POST", f"/exec/{ended}/start", json={"Detach": False, "Tty": False}) as answer:
                answer.read()

    buffers = {False: LineBuffer(), True: LineBuffer()}
    with (
        ended_by_signals(end) as interruption,
        daemon.stream("POST", f"/exec/{identity}/start", json={"Detach": False, "Tty": False}) as answer,
    ):
        for is_error, content in frames(answer.iter_raw()):
            for line in buffers[is_error].add(content):
                on_line(line, is_error)
        for is_error, buffer in buffers.items():
            for line in buffer.rest():
                on_line(line, is_error)
    if interruption.exit_code is not None:
        return interruption.exit_code
    code = daemon.ask("GET", f"/exec/{identity}/json")["ExitCode"]
    if code is None:
        raise UserError(
            f"The connection to the Docker engine broke while {argv[-1]} ran in {container}; it may run on there. "
            f"Read `docker logs {container}`, then repeat the command.",
            exit_code=1,
        )
    return int(code)


def read_file(daemon: Daemon, container: str, path: str) -> bytes | None:
    """Return a small file of a container, running or not; None where it does not exist."""
    with daemon.stream("GET", f"/containers/{container}/archive", params={"path": path}) as answer:
        content = answer.read()
        if answer.status_code == 404:
            return None
    with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member and member.isfile() else None
        return file.read(_LARGEST_FILE) if file else None
    return None


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Yield each frame of the engine's stream: whether it is of standard error, and its content."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) >= _HEADER:
            end = _HEADER + int.from_bytes(pending[4:_HEADER], "big")
            if len(pending) < end:
                break
            yield pending[0] == _STDERR, bytes(pending[_HEADER:end])
            del pending[:end]


def _create(daemon: Daemon, container: str, argv: Sequence[str], environment: Sequence[str]) -> str:
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv), "Env": list(environment)}
    return str(daemon.ask("POST", f"/containers/{container}/exec", body)["Id"])
