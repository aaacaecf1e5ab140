"""A server of S3 on loopback: rclone's own, which checks signatures, over a directory whose directories are buckets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

KEY_ID, SECRET = "AKIDPLINTHTEST", "a/secret+of+the+tests=="
BUCKET = "backups"


@dataclass
class S3:
    """One server; it has the bucket :data:`BUCKET`."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        (self.directory / BUCKET).mkdir(parents=True, exist_ok=True)
        with (self.directory.parent / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).parent / "rclone",
                    "serve",
                    "s3",
                    "--addr",
                    f"127.0.0.1:{self.port}",
                    self.directory,
                ],
                env={**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"', "RCLONE_CONFIG": "/dev/null"},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while True:
            try:
                httpx.head(self.url, timeout=2)
                return
            except httpx.HTTPError:
                assert time.monotonic() < end
                assert self.process.poll() is None, (self.directory.parent / "s3.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)
