"""Chroma's own server over a directory that its client has written, on loopback, while it is read."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from plinth.errors import UserError
from plinth.system.http_client import client_for
from plinth.system.managed_process import Child
from plinth.system.ports import free_port

VARIABLE = "PLINTH_CHROMA"
LIBRARY = "chromadb_rust_bindings"
# The library is the whole server; the client's Python packages are not needed for it.
PROGRAM = f"import sys, {LIBRARY} as chroma; chroma.cli(['chroma', *sys.argv[1:]])"


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Start a server over the directory and yield its address; raises :class:`UserError` if none can be started."""
    if not (directory / "chroma.sqlite3").is_file():
        raise UserError(f"{directory} holds no chroma.sqlite3; name the directory that Chroma's client persists to.")
    port = free_port()
    argv = [*_program(), "run", "--path", str(directory.resolve()), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory(prefix="plinth-chroma-") as place,
        Child(argv, Path(place), environment={"ANONYMIZED_TELEMETRY": "False"}) as child,
        client_for(url, timeout=2) as client,
    ):
        child.wait(
            f"Chroma's server over {directory} (does its version fit?)",
            lambda: client.get("/api/v2/heartbeat").raise_for_status(),
            httpx.HTTPError,
        )
        yield url


def _program() -> list[str]:
    if importlib.util.find_spec(LIBRARY) is not None:
        return [sys.executable, "-c", PROGRAM]
    found = shutil.which(os.environ.get(VARIABLE) or "chroma")
    if found is None:
        raise UserError(
            "Chroma's directory is read by Chroma's own server, and there is none: pip install chromadb (in any "
            f"environment, of the version that wrote the directory) and name its program in {VARIABLE}."
        )
    # It works in another directory than this.
    return [str(Path(found).absolute())]
