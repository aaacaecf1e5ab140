"""The dashboard Backups."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph, number


def backups(slo: Slo) -> Board:
    """Return the dashboard of backups, checks of the repository, and restore drills."""
    age = Limits(slo.promises.backup_age_h * 3600, 2 * slo.promises.backup_age_h * 3600)
    drill = Limits(slo.promises.drill_age_days * 86400, 2 * slo.promises.drill_age_days * 86400)
    since = "time() - (plinth_{}_last_success_timestamp_seconds > 0)"
    return Board(
        "plinth-backups",
        "Plinth / Backups",
        "How old the last good ones are, and how the last ones went.",
        (
            (
                "Age",
                (
                    number("Last good backup", "s", since.format("backup"), limits=age, zero="never"),
                    number("Last good check", "s", since.format("check"), zero="never"),
                    number("Last good drill", "s", since.format("drill"), limits=drill, zero="never"),
                    number(
                        "State can be read",
                        "short",
                        "min(plinth_backup_state_readable)",
                        limits=Limits(1, 1, falling=True),
                    ),
                    graph("Age of the last good backup", "s", (since.format("backup"), "backup"), limits=age, width=8),
                ),
            ),
            (
                "Last run",
                (
                    graph(
                        "Result",
                        "short",
                        ("plinth_backup_last_result == 1", "backup {{result}}"),
                        ("plinth_check_last_result == 1", "check {{result}}"),
                        ("plinth_drill_last_result == 1", "drill {{result}}"),
                    ),
                    graph(
                        "Stores",
                        "short",
                        ("plinth_backup_store_ok", "backup {{store}}"),
                        ("plinth_drill_store_ok", "drill {{store}}"),
                    ),
                    graph(
                        "Duration",
                        "s",
                        ("plinth_backup_last_duration_seconds", "backup"),
                        ("plinth_drill_last_duration_seconds", "drill"),
                        ("plinth_check_last_duration_seconds", "check"),
                    ),
                    graph("Size", "bytes", ("plinth_backup_last_size_bytes", "backup")),
                ),
            ),
        ),
    )
