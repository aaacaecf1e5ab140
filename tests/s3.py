"""A server of S3 on loopback: rclone's own, which checks signatures, over a directory whose directories are buckets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from plinth.system.tls import Pair

KEY_ID, SECRET = "AKIDPLINTHTEST", "a/secret+of+the+tests=="
BUCKET = "backups"


@dataclass
class S3:
    """One server; it has the bucket :data:`BUCKET`. With a certificate and its key it speaks TLS."""

    directory: Path
    port: int
    pair: Pair | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.pair else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        (self.directory / BUCKET).mkdir(parents=True, exist_ok=True)
        tls = []
        for name, text in (("cert", self.pair.cert), ("key", self.pair.key)) if self.pair else ():
            (self.directory.parent / name).write_text(text)
            tls += [f"--{name}", str(self.directory.parent / name)]
        with (self.directory.parent / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).parent / "rclone",
                    "serve",
                    "s3",
                    "--addr",
                    f"127.0.0.1:{self.port}",
                    *tls,
                    self.directory,
                ],
                env={**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"', "RCLONE_CONFIG": "/dev/null"},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while True:
            try:
                httpx.head(self.url, timeout=2, verify=False)
                return
            except httpx.HTTPError:
                assert time.monotonic() < end
                assert self.process.poll() is None, (self.directory.parent / "s3.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)
