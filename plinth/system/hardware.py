"""The hardware of this machine, as text for reports."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def cpu() -> str:
    """Return the processor's model, where the kernel reports it; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def described() -> str:
    """Return cores, processor, memory and system: two machines with the same description may be compared."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores of {cpu()}, {memory:.0f} GiB, {platform.system()} {platform.machine()}"
