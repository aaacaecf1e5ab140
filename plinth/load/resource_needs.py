"""The resources that a run of the load gate needs; pure."""

from __future__ import annotations

from plinth.load.slo import Profile
from plinth.programs.spec import Limits

# The interpreter with NumPy and what is sent; each Locust worker with its queries.
GATE_MIB, WORKER_MIB = 512, 192
# A data set exists twice while it is generated.
COPIES = 2


def limits(profile: Profile) -> Limits:
    """Return the limits: a core for each worker and one to prepare and collect; memory for the data and the workers."""
    data_mib = profile.data.points * profile.data.dimensions * 4 / 2**20
    memory = GATE_MIB + COPIES * data_mib + WORKER_MIB * profile.processes
    return Limits(cpus=profile.processes + 1.0, memory_mib=round(memory))
