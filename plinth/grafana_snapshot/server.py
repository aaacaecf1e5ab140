"""`python -m plinth.grafana_snapshot.server`: serve a consistent snapshot of a database to clients with the password.

It runs next to Grafana in its pod: a volume is on one machine at a time, and backups must not wait for that machine. It
reads the database, writes to a directory of its own and answers one request. Its client is
:mod:`plinth.backup.stores.grafana.backup`.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import shutil
import signal
import sqlite3
import sys
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from plinth.errors import UserError
from plinth.grafana_snapshot.sqlite_copy import copy
from plinth.printable import log_lines
from plinth.system.bounded_server import BoundedHTTPServer, Handler
from plinth.system.secret_file import read_secret

PATH = "/database"
# The size of the snapshot's directory; Grafana's own database is a hundredth of it.
MOST_BYTES = 960 << 20

log = logging.getLogger("plinth.grafana_snapshot.server")


class TooLarge(Exception):
    """The database is too large for a snapshot."""


class Lender(BoundedHTTPServer):
    """The server. ``directory`` holds its snapshots, which are made one after another."""

    def __init__(self, address: tuple[str, int], database: Path, password: str, directory: Path) -> None:
        super().__init__(address, _Asked)
        self.authorization = f"Bearer {password}".encode()
        self.lending = Lock()
        self._database, self._place = database, directory / "copy"

    def copied(self) -> Path:
        """Make a new snapshot and return its path; raises :class:`TooLarge`, OSError or :class:`sqlite3.Error`."""
        self.forget()
        self._place.mkdir()
        size = self._database.stat().st_size
        if size > MOST_BYTES:
            raise TooLarge(f"it has {size} bytes, and {MOST_BYTES} are the most")
        to = self._place / "database"
        copy(self._database, to)
        return to

    def forget(self) -> None:
        """Remove the snapshot, including that of a killed run."""
        shutil.rmtree(self._place, ignore_errors=True)


class _Asked(Handler):
    server: Lender

    def do_GET(self) -> None:
        """Send the snapshot, if the path and the password are right."""
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, self.server.authorization):
            self._answer(HTTPStatus.UNAUTHORIZED, "the password is another")
        elif self.path != PATH:
            self._answer(HTTPStatus.NOT_FOUND, f"there is nothing but {PATH}")
        else:
            self.server.trust(self.connection)
            with self.server.lending:
                self._lend()

    def _lend(self) -> None:
        try:
            copied = self.server.copied()
            with copied.open("rb") as content:
                self._head(HTTPStatus.OK, "application/vnd.sqlite3", copied.stat().st_size)
                shutil.copyfileobj(content, self.wfile)
        except (TooLarge, FileNotFoundError, sqlite3.Error) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        finally:
            self.server.forget()

    def _answer(self, status: HTTPStatus, sentence: str) -> None:
        content = f"{sentence}\n".encode()
        self._head(status, "text/plain; charset=utf-8", len(content))
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m plinth.grafana_snapshot.server")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="for the copy")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    log_lines()
    # Process 1 of a container gets no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        password = read_secret(given.password_file)
        if not password:
            sys.exit(f"{given.password_file} is empty, and a password was expected; write one, and start again.")
        with Lender((given.host, given.port), given.database, password, given.directory) as lender:
            lender.forget()
            log.info("lending %s at port %s", given.database, lender.server_port)
            try:
                lender.serve_forever()
            finally:
                # The server may be ended before it has removed the snapshot.
                lender.forget()
    except (OSError, UserError) as error:
        sys.exit(f"plinth.grafana_snapshot.server: {error}")


if __name__ == "__main__":
    main()
