"""The dashboard Host."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph

DISK = 'fstype!~"tmpfs|overlay|squashfs"'


def host(_slo: Slo) -> Board:
    """Return the dashboard of the machine and the resource usage of each service (S0-05)."""
    return Board(
        "plinth-host",
        "Plinth / Host",
        "The machine, and what each service takes of it.",
        (
            (
                "By service",
                (
                    graph(
                        "Processor",
                        "short",
                        ("rate(plinth_service_cpu_seconds_total[2m])", "{{node}}"),
                        about="Cores.",
                        stacked=True,
                    ),
                    graph(
                        "Memory",
                        "bytes",
                        ("plinth_service_resident_bytes", "{{node}}"),
                        ("plinth_service_working_set_bytes", "{{node}}"),
                        about="Of a process what is resident, with shared pages; of a container its working set.",
                        stacked=True,
                    ),
                    graph(
                        "Memory of the limit",
                        "percentunit",
                        ("plinth_service_unreclaimable_bytes / plinth_service_memory_limit_bytes", "{{node}}"),
                        about="Of containers: what the kernel cannot take back. It ends the process at the limit.",
                        limits=Limits(0.8, 0.9),
                    ),
                    graph(
                        "Held back",
                        "percentunit",
                        ("rate(plinth_service_cpu_throttled_periods_total[5m]) / 10", "{{node}}"),
                        about="Of containers: time in which a share of the processors was used up too soon.",
                        limits=Limits(0.25, 0.5),
                    ),
                    graph("Disk, written", "Bps", ("rate(plinth_service_written_bytes_total[2m])", "{{node}}")),
                    graph("Disk, read", "Bps", ("rate(plinth_service_read_bytes_total[2m])", "{{node}}")),
                    graph(
                        "Data on disk",
                        "bytes",
                        ("plinth_service_disk_bytes", "{{node}}"),
                        stacked=True,
                    ),
                ),
            ),
            (
                "Machine",
                (
                    graph(
                        "Cores busy",
                        "percentunit",
                        ('1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))', "{{instance}}"),
                        limits=Limits(0.7, 0.9),
                    ),
                    graph(
                        "Memory that is left",
                        "percentunit",
                        ("node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),
                        limits=Limits(0.2, 0.1, falling=True),
                    ),
                    graph(
                        "Disk that is left",
                        "percentunit",
                        (
                            f"node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes{{{DISK}}}",
                            "{{mountpoint}}",
                        ),
                        limits=Limits(0.3, 0.15, falling=True),
                    ),
                    graph(
                        "Disk in four hours, in two weeks",
                        "bytes",
                        (f"predict_linear(node_filesystem_avail_bytes{{{DISK}}}[6h], 4 * 3600)", "4 h {{mountpoint}}"),
                        (
                            f"predict_linear(node_filesystem_avail_bytes{{{DISK}}}[3d], 14 * 86400)",
                            "14 d {{mountpoint}}",
                        ),
                        about="What would be left at the present pace; below nothing is full.",
                    ),
                    graph(
                        "Disk",
                        "Bps",
                        ("sum by (instance) (rate(node_disk_read_bytes_total[5m]))", "read"),
                        ("sum by (instance) (rate(node_disk_written_bytes_total[5m]))", "written"),
                    ),
                    graph(
                        "Inodes that are left",
                        "percentunit",
                        (
                            f"node_filesystem_files_free{{{DISK}}} / (node_filesystem_files{{{DISK}}} > 0)",
                            "{{mountpoint}}",
                        ),
                        limits=Limits(0.2, 0.1, falling=True),
                    ),
                    graph("Load", "short", ("node_load5", "{{instance}}")),
                    graph(
                        "Processes killed for memory",
                        "short",
                        ("increase(node_vmstat_oom_kill[1h])", "{{instance}}"),
                        limits=Limits(None, 1),
                    ),
                ),
            ),
        ),
    )
