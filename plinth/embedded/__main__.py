"""`python -m plinth.embedded --config-path FILE`: serve until told to stop."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

import uvicorn

from plinth.embedded import ENGINE
from plinth.embedded.app import application
from plinth.embedded.config import load
from plinth.errors import UserError
from plinth.printable import log_lines, visible
from plinth.system.http_connections import Connection


def main() -> None:
    """Read Qdrant's config file and serve."""
    parser = argparse.ArgumentParser(prog="plinth.embedded", description=ENGINE)
    parser.add_argument("--config-path", type=Path, required=True, help="Qdrant's own config file (YAML)")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config_path)
    except UserError as error:
        sys.stderr.write(visible(f"plinth.embedded: {error}") + "\n")
        sys.exit(2)
    level = {"TRACE": "DEBUG", "WARN": "WARNING"}.get(config.log_level, config.log_level)
    log_lines(level, "%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.info("%s on http://%s:%d, data in %s", ENGINE, config.host, config.port, config.storage)
    # Once it has stopped in good order uvicorn raises the signal again, which would look like a kill.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        application(config),
        host=config.host,
        port=config.port,
        access_log=False,
        log_level=level.lower(),
        log_config=None,
        http=Connection,
        ws="none",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
