"""The gateway from its configuration: every part made and put together, and taken apart again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.types import ASGIApp

from plinth.errors import UserError
from plinth.gateway.audit import AuditLog
from plinth.gateway.config import GatewayConfig, RedisServer, Tokens
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.database import Pool, connection_pool
from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.jobs.store import JobStore
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.metrics_page import MetricsPage
from plinth.gateway.operations import Operations
from plinth.gateway.providers import embedder_for
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.rate_limits import RateLimits
from plinth.gateway.readiness import Readiness
from plinth.gateway.rest_api.app import rest_app
from plinth.gateway.result_cache import ResultCache
from plinth.gateway.shared_collections import reserved_names, shared_collections
from plinth.gateway.tokens import Claims, PublicKeys, SharedKey, TokenVerifier
from plinth.gateway.tracing import Tracing, tracing_of
from plinth.gateway.vector_store import VectorStore
from plinth.system.secret_file import read_secret

# Connections to Postgres of a gateway, shared among its processes, and of each at least.
POOL_MAX, POOL_MIN = 8, 3
REDIS_CONNECTIONS_MAX = 64


@dataclass(frozen=True)
class Gateway:
    """The parts that serve."""

    config: GatewayConfig
    operations: Operations
    verifier: TokenVerifier
    audit: AuditLog
    metrics: GatewayMetrics
    readiness: Readiness
    jobs: Jobs
    tracing: Tracing | None = None

    def rest_app(self, metrics_page: MetricsPage | None = None) -> ASGIApp:
        """The REST application."""
        limits = self.config.limits
        token = self.config.metrics_token_file
        return rest_app(
            self.operations,
            self.verifier,
            self.audit,
            self.metrics,
            self.readiness,
            self.jobs,
            request_s=limits.request_s,
            body_bytes=limits.body_bytes,
            metrics_token=read_secret(token) if token else None,
            metrics_page=metrics_page,
            tracing=self.tracing,
        )


@asynccontextmanager
async def gateway(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """Every part, connected when it is first used: a store that is away now may come.

    Raises :class:`UserError` for a configuration that says not whose tokens are good.
    """
    if config.tokens is None:
        raise UserError("the configuration has no tokens, which a server checks; name tokens.key_file or tokens.jwks.")
    async with AsyncExitStack() as parts:
        tracing = await parts.enter_async_context(traced(config, "server"))
        store = VectorStore(QdrantConnection(config.qdrant), tracing)
        parts.push_async_callback(store.close)
        redis = redis_client(config.redis)
        parts.push_async_callback(redis.aclose)
        postgres = connection_pool(postgres_dsn(config), max(POOL_MIN, POOL_MAX // config.listen.processes))
        await postgres.open(wait=False)
        parts.push_async_callback(postgres.close)
        embedder = embedder_for(config.provider)
        parts.push_async_callback(embedder.close)
        metrics, audit = GatewayMetrics(), AuditLog(config.audit.file, required=config.audit.required)
        cache = ResultCache(redis, ttl_s=config.cache.ttl_s) if config.cache.enabled else None
        limits = RateLimits(redis_url(config.redis), config.limits.per_second, config.limits.burst)
        operations = Operations(
            store,
            audit,
            shared=shared_collections(config.collections),
            reserved=reserved_names(config.collections),
            embedder=embedder,
            cache=cache,
            limits=limits,
            metrics=metrics,
        )
        _count(metrics, audit, cache, limits)
        count_failures(metrics, tracing)
        yield Gateway(
            config,
            operations,
            verifier_of(config.tokens),
            audit,
            metrics,
            _readiness(config, store, redis, postgres),
            Jobs(operations, JobStore(postgres), embedder),
            tracing,
        )


@asynccontextmanager
async def worker_operations(
    config: GatewayConfig, metrics: GatewayMetrics, tracing: Tracing | None = None
) -> AsyncIterator[Operations]:
    """The core as workers use it: whoever asked for a job was let in before, and its texts are embedded elsewhere."""
    store = VectorStore(QdrantConnection(config.qdrant), tracing)
    redis = redis_client(config.redis)
    try:
        yield Operations(
            store,
            AuditLog(config.audit.file, required=config.audit.required),
            shared=shared_collections(config.collections),
            reserved=reserved_names(config.collections),
            cache=ResultCache(redis, ttl_s=config.cache.ttl_s) if config.cache.enabled else None,
            metrics=metrics,
        )
    finally:
        await store.close()
        await redis.aclose()


def jobs_config(config: GatewayConfig) -> JobsConfig:
    """What the dispatcher and the workers need of it."""
    return JobsConfig(
        postgres_dsn=SecretStr(postgres_dsn(config)),
        redis_url=SecretStr(redis_url(config.redis)),
        provider=config.provider,
        worker_concurrency=config.jobs.worker_concurrency,
        dispatch_interval_ms=config.jobs.dispatch_interval_ms,
    )


def verifier_of(tokens: Tokens) -> TokenVerifier:
    """Who checks tokens, by the keys that are named."""
    claims = Claims(tokens.issuer, tokens.audience, tokens.organisation_claim, tokens.scopes_claim)
    if tokens.key_file is not None:
        return TokenVerifier(SharedKey(read_secret(tokens.key_file)), claims)
    return TokenVerifier(PublicKeys(tokens.jwks or ""), claims)


def redis_url(server: RedisServer) -> str:
    """The address with its password."""
    password = f":{quote(read_secret(server.password_file), safe='')}@" if server.password_file else ""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{'rediss' if server.tls else 'redis'}://{password}{host}:{server.port}"


def redis_client(server: RedisServer) -> Redis:
    """A client that tries once: whoever asks knows what to do without."""
    return Redis.from_url(
        redis_url(server),
        socket_timeout=2,
        socket_connect_timeout=0.25,
        retry=Retry(NoBackoff(), 0),
        max_connections=REDIS_CONNECTIONS_MAX,
    )


def postgres_dsn(config: GatewayConfig) -> str:
    """How to connect to the database of jobs."""
    server = config.postgres
    return make_conninfo(
        host=server.host,
        port=server.port,
        dbname=server.database,
        user=server.user,
        password=read_secret(server.password_file),
        connect_timeout=3,
        application_name="plinth-gateway",
    )


@asynccontextmanager
async def traced(config: GatewayConfig, role: str) -> AsyncIterator[Tracing | None]:
    """What makes spans of a role; those that wait are sent at the end."""
    tracing = tracing_of(config.tracing, role)
    try:
        yield tracing
    finally:
        if tracing:
            await asyncio.to_thread(tracing.close)


def count_failures(metrics: GatewayMetrics, tracing: Tracing | None) -> None:
    """Show the spans that were not sent: none where nothing is traced, so that the series is always there."""
    metrics.counted(
        "plinth_gateway_trace_failures",
        "Spans that could not be sent",
        lambda: tracing.failures if tracing else 0,
    )


def _readiness(config: GatewayConfig, store: VectorStore, redis: Redis, postgres: Pool) -> Readiness:
    async def ask_postgres() -> None:
        async with postgres.connection() as connection:
            await connection.execute("SELECT 1")

    probes = config.probes
    return Readiness(
        {
            "pg": ask_postgres,
            "redis": redis.ping,
            "qdrant": (lambda: store.ready(probes.timeout_ms / 1000)) if probes.qdrant else None,
        },
        timeout_ms=probes.timeout_ms,
        retries=probes.retries,
        cache_sec=probes.cache_sec,
    )


def _count(metrics: GatewayMetrics, audit: AuditLog, cache: ResultCache | None, limits: RateLimits) -> None:
    metrics.counted("plinth_gateway_audit_failures", "Audit lines that could not be written", lambda: audit.failures)
    metrics.counted("plinth_gateway_limit_failures", "Limits that Redis did not count", lambda: limits.failures)
    if cache:
        metrics.counted("plinth_gateway_cache_hits", "Searches that the cache answered", lambda: cache.hits)
        metrics.counted("plinth_gateway_cache_misses", "Searches that it did not", lambda: cache.misses)
        metrics.counted("plinth_gateway_cache_failures", "Times that Redis was away", lambda: cache.failures)
