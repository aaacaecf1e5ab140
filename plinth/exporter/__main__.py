"""Run `python -m plinth.exporter --config-path FILE`: serve the metrics page, and refresh it every 30 seconds."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from plinth.errors import UserError
from plinth.exporter.collector import Watch, client
from plinth.exporter.config import load_config
from plinth.exporter.usage_server import Machine, figures
from plinth.printable import log_lines, visible
from plinth.system.bounded_server import serve_metrics


def main() -> None:
    """Run until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m plinth.exporter")
    parser.add_argument("--config-path", type=Path, required=True)
    # Process 1 of a container gets only the signals that it handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_lines()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = load_config(parser.parse_args().config_path)
        seen = figures(Machine(config.services, config.volumes))
        # Creation times double the series of every counter, and nothing reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        with client(config) as qdrant:
            watch = Watch(config, qdrant, registry, seen)
            serve_metrics(config.listen.host, config.listen.port, registry)
            while True:
                began = time.monotonic()
                watch.round()
                time.sleep(max(0.0, config.pace.round_sec - (time.monotonic() - began)))
    except (UserError, OSError) as error:
        sys.exit(visible(f"plinth exporter: {error}"))


main()
