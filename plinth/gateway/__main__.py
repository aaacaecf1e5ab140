"""`python -m plinth.gateway server|worker --config-path FILE`: serve and dispatch jobs, or do them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import psycopg
import uvicorn
import uvloop

from plinth.errors import UserError
from plinth.gateway.config import GatewayConfig, load_config
from plinth.gateway.grpc_api.server import GrpcServer, Tls, serve_grpc
from plinth.gateway.jobs.dispatcher import run_dispatcher
from plinth.gateway.jobs.schema import migrate
from plinth.gateway.jobs.worker import run_worker
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.metrics_page import MetricsPage, common_page
from plinth.gateway.processes import ServerProcess, join, run_processes, shared_socket
from plinth.gateway.server import Gateway, count_failures, gateway, jobs_config, postgres_dsn, traced, worker_operations
from plinth.printable import log_lines, visible
from plinth.system.bounded_server import serve_metrics
from plinth.system.http_connections import Connection

# What is in work when it is told to stop has this long to end, in seconds.
STOP_S = 20
# Between tries to reach the database before its schema is there.
RETRY_S = 1.0
log = logging.getLogger("plinth.gateway")


async def serve(config: GatewayConfig, process: ServerProcess | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and finish what has begun. ``process`` is set where several share the ports."""
    stop, listen, page, sockets = asyncio.Event(), config.listen, None, None
    async with gateway(config) as parts:
        if process:
            page = await common_page(parts.metrics.registry, process, listen.processes)
            sockets = [shared_socket(listen.host, listen.http_port)]
        grpc_server = await _grpc_server(parts, reuse_port=process is not None)
        http_server = _http_server(parts, page)
        # One of them dispatches: it ends with the others, so there always is one.
        is_dispatcher = process is None or process.number == 0
        dispatching = asyncio.create_task(_dispatch(config, parts.metrics, stop) if is_dispatcher else stop.wait())
        stopping = asyncio.create_task(_stop_with(http_server, grpc_server))
        try:
            await http_server.serve(sockets)
        finally:
            stop.set()
            http_server.should_exit = True
            await asyncio.gather(stopping, dispatching)


async def work(config: GatewayConfig) -> None:
    """Do jobs until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = GatewayMetrics()
    serve_metrics(config.listen.host, config.listen.http_port, metrics.registry)
    await _migrated(config, stop)
    async with traced(config, "worker") as tracing, worker_operations(config, metrics, tracing) as operations:
        count_failures(metrics, tracing)
        await run_worker(jobs_config(config), operations, metrics, stop, tracing)


async def _dispatch(config: GatewayConfig, metrics: GatewayMetrics, stop: asyncio.Event) -> None:
    await _migrated(config, stop)
    await run_dispatcher(jobs_config(config), metrics, stop)


async def _migrated(config: GatewayConfig, stop: asyncio.Event) -> None:
    """Bring the database to this version's schema, as soon as it can be reached."""
    told = False
    while not stop.is_set():
        try:
            await asyncio.to_thread(_migrate, postgres_dsn(config))
            return
        except psycopg.OperationalError as error:
            if not told:
                log.warning("the database of jobs cannot be reached yet: %s", visible(str(error)))
            told = True
            await asyncio.sleep(RETRY_S)


def _migrate(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        for version in migrate(connection):
            log.info("the database of jobs has the schema of version %s", version)


def _http_server(parts: Gateway, metrics_page: MetricsPage | None) -> uvicorn.Server:
    listen = parts.config.listen
    return uvicorn.Server(
        uvicorn.Config(
            parts.rest_app(metrics_page),
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


async def _stop_with(http_server: uvicorn.Server, grpc_server: GrpcServer) -> None:
    """Stop gRPC when REST, which has the signals, is told to: both have the same seconds."""
    while not http_server.should_exit:
        await asyncio.sleep(0.1)
    await grpc_server.stop(STOP_S)


async def _grpc_server(parts: Gateway, *, reuse_port: bool) -> GrpcServer:
    listen, limits = parts.config.listen, parts.config.limits
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return await serve_grpc(
        parts.operations,
        parts.verifier,
        parts.audit,
        parts.metrics,
        f"{host}:{listen.grpc_port}",
        tls=Tls(listen.cert_file, listen.key_file) if listen.cert_file and listen.key_file else None,
        request_s=limits.request_s,
        message_bytes=limits.body_bytes,
        reuse_port=reuse_port,
        tracing=parts.tracing,
    )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m plinth.gateway")
    parser.add_argument("role", choices=("server", "worker"))
    parser.add_argument("--config-path", type=Path, required=True)
    # Of the processes that the server starts.
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    log_lines()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = load_config(arguments.config_path, os.environ)
        if arguments.role == "worker":
            uvloop.run(work(config))
        elif arguments.process is not None:
            process = ServerProcess(arguments.process, arguments.directory)
            join(process)
            uvloop.run(serve(config, process))
        elif config.listen.processes > 1:
            sys.exit(run_processes(arguments.config_path, config.listen))
        else:
            uvloop.run(serve(config))
    except (UserError, OSError) as error:
        sys.exit(visible(f"plinth gateway: {error}"))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return


if __name__ == "__main__":
    main()
