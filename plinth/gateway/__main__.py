"""`python -m plinth.gateway --config-path FILE`: serve REST and gRPC until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import uvicorn
import uvloop

from plinth.embedded.connections import Connection
from plinth.errors import UserError
from plinth.gateway.config import GatewayConfig, load_config
from plinth.gateway.server import gateway
from plinth.visible import log_lines, visible

# What is in work when it is told to stop has this long to end, in seconds.
STOP_S = 20


async def serve(config: GatewayConfig) -> None:
    """Serve until SIGTERM or SIGINT, and finish what has begun."""
    async with gateway(config) as parts:
        listen = config.listen
        server = uvicorn.Server(
            uvicorn.Config(
                parts.rest_app(),
                host=listen.host,
                port=listen.http_port,
                http=Connection,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
                ssl_certfile=listen.cert_file,
                ssl_keyfile=listen.key_file,
            )
        )
        await server.serve()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m plinth.gateway")
    parser.add_argument("--config-path", type=Path, required=True)
    arguments = parser.parse_args()
    log_lines()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        uvloop.run(serve(load_config(arguments.config_path, os.environ)))
    except (UserError, OSError) as error:
        sys.exit(visible(f"plinth gateway: {error}"))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return


if __name__ == "__main__":
    main()
