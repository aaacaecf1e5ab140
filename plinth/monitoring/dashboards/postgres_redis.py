"""The dashboards of Postgres and Redis."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph, number

CONNECTIONS = "sum by (instance) (pg_stat_database_numbackends) / max by (instance) (pg_settings_max_connections)"
HIT, READ = (f'rate(pg_stat_database_blks_{kind}{{datname!=""}}[5m])' for kind in ("hit", "read"))
FOUND, MISSED = (f"rate(redis_keyspace_{kind}_total[5m])" for kind in ("hits", "misses"))


def postgres(_slo: Slo) -> Board:
    """Return the dashboard of Postgres by database."""
    by = "{{datname}}"
    return Board(
        "plinth-postgres",
        "Plinth / Postgres",
        "Connections, transactions, locks and size, by database.",
        (
            (
                "Load",
                (
                    graph(
                        "Connections taken",
                        "percentunit",
                        (
                            CONNECTIONS,
                            "{{instance}}",
                        ),
                        limits=Limits(0.8, 0.95),
                    ),
                    graph("Connections by state", "short", ("sum by (state) (pg_stat_activity_count)", "{{state}}")),
                    graph(
                        "Longest transaction",
                        "s",
                        ("max by (datname) (pg_stat_activity_max_tx_duration)", by),
                        limits=Limits(600, 1800),
                    ),
                    graph(
                        "Commits", "ops", ('sum by (datname) (rate(pg_stat_database_xact_commit{datname!=""}[5m]))', by)
                    ),
                    graph(
                        "Rollbacks",
                        "ops",
                        ('sum by (datname) (rate(pg_stat_database_xact_rollback{datname!=""}[5m]))', by),
                    ),
                    graph("Locks held", "short", ("sum by (mode) (pg_locks_count)", "{{mode}}")),
                ),
            ),
            (
                "Health",
                (
                    graph(
                        "Deadlocks",
                        "short",
                        ('sum by (datname) (increase(pg_stat_database_deadlocks{datname!=""}[15m]))', by),
                    ),
                    graph(
                        "Damaged pages",
                        "short",
                        ("sum by (datname) (pg_stat_database_checksum_failures)", by),
                        limits=Limits(None, 1),
                    ),
                    graph(
                        "Read from cache",
                        "percentunit",
                        (
                            f"sum by (datname) ({HIT}) / sum by (datname) ({HIT} + {READ})",
                            by,
                        ),
                    ),
                    graph("Size", "bytes", ('pg_database_size_bytes{datname!~"template.*"}', by), stacked=True),
                    graph(
                        "Temporary files",
                        "Bps",
                        ('sum by (datname) (rate(pg_stat_database_temp_bytes{datname!=""}[5m]))', by),
                    ),
                ),
            ),
        ),
    )


def redis(_slo: Slo) -> Board:
    """Return the dashboard of Redis."""
    return Board(
        "plinth-redis",
        "Plinth / Redis",
        "Memory, hits, commands and persistence.",
        (
            (
                "Use",
                (
                    graph(
                        "Memory",
                        "bytes",
                        ("redis_memory_used_bytes", "used"),
                        ("redis_memory_max_bytes", "maxmemory"),
                        ("redis_memory_used_rss_bytes", "of the process"),
                    ),
                    graph(
                        "Found in cache",
                        "percentunit",
                        (
                            f"{FOUND} / ({FOUND} + {MISSED})",
                            "{{instance}}",
                        ),
                        about="Nothing while nobody reads.",
                    ),
                    graph("Commands", "ops", ("sum by (cmd) (rate(redis_commands_total[5m]))", "{{cmd}}")),
                    graph("Clients", "short", ("redis_connected_clients", "{{instance}}")),
                    graph("Keys", "short", ("redis_db_keys", "{{db}}")),
                    graph(
                        "Keys evicted and expired",
                        "ops",
                        ("rate(redis_evicted_keys_total[5m])", "evicted"),
                        ("rate(redis_expired_keys_total[5m])", "expired"),
                    ),
                ),
            ),
            (
                "Persistence",
                (
                    number(
                        "Last snapshot", "short", "min(redis_rdb_last_bgsave_status)", limits=Limits(1, 1, falling=True)
                    ),
                    number(
                        "Append-only file",
                        "short",
                        "min(redis_aof_last_write_status)",
                        limits=Limits(1, 1, falling=True),
                    ),
                    graph(
                        "Changes since the last snapshot",
                        "short",
                        ("redis_rdb_changes_since_last_save", "{{instance}}"),
                    ),
                    graph(
                        "Connections refused",
                        "short",
                        ("increase(redis_rejected_connections_total[5m])", "{{instance}}"),
                    ),
                ),
            ),
        ),
    )
