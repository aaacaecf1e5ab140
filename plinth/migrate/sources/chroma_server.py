"""Chroma's own server over a directory that its client has written, on loopback, for as long as it is read."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from plinth.errors import UserError
from plinth.scratch import free_port

VARIABLE = "PLINTH_CHROMA"
LIBRARY = "chromadb_rust_bindings"
# The library is the whole server; the client's Python packages are not needed for it.
PROGRAM = f"import sys, {LIBRARY} as chroma; chroma.cli(['chroma', *sys.argv[1:]])"
START_DEADLINE_S = 60.0


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """The address of a server over the directory; raises :class:`UserError` where there is none to be had."""
    if not (directory / "chroma.sqlite3").is_file():
        raise UserError(f"{directory} holds no chroma.sqlite3; name the directory that Chroma's client persists to.")
    port = free_port()
    arguments = ["run", "--path", str(directory), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*_program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
        start_new_session=True,
    )
    try:
        _wait(process, f"http://127.0.0.1:{port}", directory)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program() -> list[str]:
    if importlib.util.find_spec(LIBRARY) is not None:
        return [sys.executable, "-c", PROGRAM]
    found = os.environ.get(VARIABLE) or shutil.which("chroma")
    if found is None:
        raise UserError(
            "Chroma's directory is read by Chroma's own server, and there is none: pip install chromadb (in any "
            f"environment, of the version that wrote the directory) and name its program in {VARIABLE}."
        )
    return [found]


def _wait(process: subprocess.Popen[bytes], url: str, directory: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/api/v2/heartbeat", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise UserError(f"Chroma's server did not start over {directory}; does its version fit?", exit_code=1)
