"""What a run of the load gate takes of a machine; pure."""

from __future__ import annotations

from plinth.load.slo import Profile
from plinth.programs.spec import Limits

# The interpreter with numpy and what is sent; each worker of Locust's with the queries.
GATE_MIB, WORKER_MIB = 512, 192
# While a set is generated it is there twice.
COPIES = 2


def limits(profile: Profile) -> Limits:
    """A core for each worker and one for what prepares and gathers; memory for the data set and the workers."""
    data_mib = profile.data.points * profile.data.dimensions * 4 / 2**20
    memory = GATE_MIB + COPIES * data_mib + WORKER_MIB * profile.processes
    return Limits(cpus=profile.processes + 1.0, memory_mib=round(memory))
