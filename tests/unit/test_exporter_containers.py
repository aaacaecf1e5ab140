"""What the exporter reads of containers: both versions of cgroups, as each of the engine's drivers lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.exporter.cgroup_usage import VERSION_1, VERSION_2, Sum, families, figures, numbers, uses
from plinth.exporter.config import Cgroups, Container

REDIS, NODE = Container(service="redis", node="redis"), Container(service="qdrant", node="qdrant-1")
MIB = 2**20


def write(directory: Path, **texts: str) -> None:
    """Files of a cgroup; `__` in a name is a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name.replace("__", ".")).write_text(text)


def wanted(directory: Path) -> Cgroups:
    return Cgroups(directory=directory, above={"plinth-t-redis.slice": REDIS, "plinth-t-qdrant_1.slice": NODE})


@pytest.mark.requirement("S0-05")
def test_version_2_below_slices_of_systemd(tmp_path: Path) -> None:
    write(tmp_path, cgroup__controllers="cpu io memory\n")
    stack = tmp_path / "plinth.slice" / "plinth-t.slice"
    write(
        stack / "plinth-t-redis.slice" / "docker-0a.scope",
        cpu__stat="usage_usec 2500000\nuser_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec 400000\n",
        memory__current=f"{50 * MIB}\n",
        memory__stat=f"anon {20 * MIB}\nfile {30 * MIB}\nshmem {2 * MIB}\ninactive_file {10 * MIB}\n",
        memory__max=f"{100 * MIB}\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n",
    )
    # Neither counted by itself nor limited: only the processor is always told.
    write(stack / "plinth-t-qdrant_1.slice" / "docker-0b.scope", cpu__stat="usage_usec 7\n", memory__max="max\n")
    write(tmp_path / "system.slice" / "plinth-other-redis.slice" / "docker-0c.scope", cpu__stat="usage_usec 9\n")
    found = uses(wanted(tmp_path))
    assert found[REDIS] == pytest.approx(
        {
            "cpu_seconds": 2.5,
            "cpu_throttled_seconds": 0.4,
            "cpu_throttled_periods": 3,
            "read_bytes": 15,
            "written_bytes": 20,
            "working_set_bytes": 40 * MIB,
            "unreclaimable_bytes": 22 * MIB,
            "memory_limit_bytes": 100 * MIB,
        }
    )
    assert found[NODE] == pytest.approx({"cpu_seconds": 7e-6})
    assert set(found) == {REDIS, NODE}


@pytest.mark.requirement("S0-05")
def test_version_1_where_each_controller_has_a_hierarchy_and_the_engine_a_place_of_its_own(tmp_path: Path) -> None:
    above = "docker.service/plinth-t-redis.slice/0a"
    write(tmp_path / "cpuacct" / above, cpuacct__usage="2500000000\n")
    write(tmp_path / "cpu" / above, cpu__stat="nr_periods 9\nnr_throttled 3\nthrottled_time 400000000\n")
    write(
        tmp_path / "memory" / "elsewhere" / above,
        memory__usage_in_bytes=f"{50 * MIB}\n",
        memory__stat=f"rss 1\ntotal_rss {20 * MIB}\ntotal_shmem {2 * MIB}\ntotal_inactive_file {10 * MIB}\n",
        memory__limit_in_bytes="9223372036854771712\n",
    )
    assert uses(wanted(tmp_path)) == {
        REDIS: pytest.approx(
            {
                "cpu_seconds": 2.5,
                "cpu_throttled_seconds": 0.4,
                "cpu_throttled_periods": 3,
                "working_set_bytes": 40 * MIB,
                "unreclaimable_bytes": 22 * MIB,
            }
        )
    }


def test_a_container_that_started_again_is_read_and_not_what_an_engine_left_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, cgroup__controllers="cpu\n")
    for name, usage, born in (("b", 1, 1), ("a", 2, 2)):
        write(tmp_path / "plinth-t-redis.slice" / name, cpu__stat=f"usage_usec {usage}\n")
        os.utime(tmp_path / "plinth-t-redis.slice" / name, (born, born))
    (tmp_path / "plinth-t-qdrant_1.slice").mkdir()
    assert uses(wanted(tmp_path)) == {REDIS: pytest.approx({"cpu_seconds": 2e-6})}


def test_a_machine_without_cgroups_has_no_figures(tmp_path: Path) -> None:
    assert uses(wanted(tmp_path / "none")) == {}


FILES = sorted({name.split(" ")[0] for sums in (VERSION_1, VERSION_2) for s in sums.values() for name in s.plus})
LINES = st.one_of(st.text(), st.from_regex(r"(anon|usage_usec|inactive_file) \d+\n", fullmatch=True))


@given(st.dictionaries(st.sampled_from(FILES), LINES), st.sampled_from([VERSION_1, VERSION_2]))
def test_whatever_a_kernel_writes_no_figure_is_negative_or_made_up(texts: dict[str, str], sums: dict[str, Sum]) -> None:
    known = numbers(texts)
    assert all(name.split(" ")[0] in texts for name in known)
    assert all(value >= 0 for value in figures(known, sums).values())


def test_the_page_has_each_figure_once_by_service_and_node() -> None:
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families({NODE: {"cpu_seconds": 2.0, "working_set_bytes": 3.0}, REDIS: {"cpu_seconds": 1.0}})
        for sample in family.samples
    }
    assert told == {
        ("plinth_service_cpu_seconds_total", "qdrant", "qdrant-1"): 2,
        ("plinth_service_cpu_seconds_total", "redis", "redis"): 1,
        ("plinth_service_working_set_bytes", "qdrant", "qdrant-1"): 3,
    }
