"""What every test may use: the project's root, free ports, and a server for each engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml
from hypothesis import settings

from plinth.system.ports import free_port

# What a shell starts in the background ignores a Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes depends on the machine.
settings.register_profile("plinth", deadline=None)
settings.load_profile("plinth")
ROOT = Path(__file__).parent.parent
KEY, READ_ONLY_KEY = "full-key-for-tests-of-32-bytes-and-more", "read-only-key-for-tests"
START_DEADLINE_S = 60


def real_qdrant() -> str | None:
    """The real server's binary, where there is one."""
    return os.environ.get("PLINTH_QDRANT") or shutil.which("qdrant")


@dataclass
class Server:
    """A server that a test started; it can be killed and started again on the same data."""

    command: list[str]
    directory: Path
    port: int
    grpc_port: int
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.directory, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=60)


def make_server(engine: str, directory: Path, **service: object) -> Server:
    """A server of an engine over a directory, on a free port, with both keys; not yet started."""
    directory.mkdir(parents=True, exist_ok=True)
    port, grpc_port = free_port(), free_port()
    config = {
        "log_level": "WARN",
        "telemetry_disabled": True,
        "service": {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": grpc_port,
            "api_key": KEY,
            "read_only_api_key": READ_ONLY_KEY,
            **service,
        },
        "storage": {
            "storage_path": str(directory / "storage"),
            "snapshots_path": str(directory / "snapshots"),
            "optimizers": {"flush_interval_sec": 1},
        },
    }
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    program = [sys.executable, "-m", "plinth.embedded"] if engine == "embedded" else [str(real_qdrant())]
    return Server([*program, "--config-path", str(path)], directory, port, grpc_port)


ENGINES = [
    "embedded",
    pytest.param(
        "qdrant",
        marks=[
            pytest.mark.qdrant,
            pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH"),
        ],
    ),
]


@pytest.fixture(scope="session", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of each engine, for the whole session: tests use collections of their own."""
    started = make_server(request.param, tmp_path_factory.mktemp(request.param))
    started.start()
    yield started
    started.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A maker of embedded servers that a test may kill."""
    made: list[Server] = []

    def make(**service: object) -> Server:
        made.append(make_server("embedded", tmp_path / f"server{len(made)}", **service))
        made[-1].start()
        return made[-1]

    yield make
    for started in made:
        if started.process and started.process.poll() is None:
            started.stop(signal.SIGKILL)
