"""Memory use of a process."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil


class Memory(NamedTuple):
    """Memory of a process and its children, in bytes; a page that several share counts in parts (PSS).

    ``anonymous`` cannot be reclaimed; ``files`` are mapped pages, which the kernel reclaims when it needs memory.
    """

    anonymous: int
    files: int

    @property
    def total(self) -> int:
        """The sum of anonymous and file memory, in bytes."""
        return self.anonymous + self.files


def memory_of(pid: int) -> Memory:
    """Return the memory of a process and all its children."""
    own = psutil.Process(pid)
    parts = [_memory(process.pid) for process in (own, *own.children(recursive=True))]
    return Memory(sum(part.anonymous for part in parts), sum(part.files for part in parts))


def _memory(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0)  # it has ended
    kilobytes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    anonymous = kilobytes["Pss_Anon"] * 1024
    return Memory(anonymous, kilobytes["Pss"] * 1024 - anonymous)
