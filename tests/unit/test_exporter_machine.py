"""What the exporter reads of this machine: services by their ports, and the marks of the command line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from plinth.exporter.process_usage import families as service_families
from plinth.exporter.process_usage import sizes, uses
from plinth.status_files import events
from tests.conftest import free_port

REPORT = {
    "verdict": "fail",
    "operations": {
        "search": {
            "p95_ms": 60,
            "p99_ms": 80,
            "target_ms": 50,
            "rps": 20,
            "errors": 1,
            "recall_at_10": 0.9,
            "count": 9,
        },
        "get": {"p95_ms": 1, "p99_ms": 2, "target_ms": 10, "rps": 5, "errors": 0, "count": 9},
    },
}


def samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


@pytest.mark.requirement("S0-05")
def test_a_service_is_found_by_its_port_and_one_that_is_elsewhere_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = uses({"here": listening.getsockname()[1], "elsewhere": free_port()})
    assert set(found) == {"here"}
    assert found["here"].resident > 2**20
    assert found["here"].cpu_s > 0
    told = samples(list(service_families(found, {"here": 5})))
    assert told[("plinth_service_resident_bytes", "here", "here")] == found["here"].resident
    assert told[("plinth_service_disk_bytes", "here", "here")] == 5


@pytest.mark.requirement("S0-05")
def test_a_volume_is_as_big_as_what_it_takes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 2**20)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(2**30)
    found = sizes({"qdrant": [tmp_path], "unseen": [tmp_path / "no"]})
    assert set(found) == {"qdrant"}
    assert 2**20 <= found["qdrant"] < 2**24


def test_a_deploy_and_a_load_run_are_marked_beside_each_other(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    events.mark_load(path, REPORT)
    events.mark_deploy(path)
    told = samples(list(events.families(events.read(path))))
    assert told[("plinth_last_deploy_timestamp_seconds",)] >= told[("plinth_load_last_timestamp_seconds",)] > 0
    assert told[("plinth_load_p95_seconds", "search")] == pytest.approx(0.06)
    assert told[("plinth_load_last_verdict", "fail")] == 1
    assert told[("plinth_load_last_verdict", "pass")] == 0
    assert told[("plinth_load_recall_ratio",)] == pytest.approx(0.9)


def test_marks_are_a_help_and_never_in_the_way(tmp_path: Path) -> None:
    events.mark_deploy(tmp_path / "nobody looks here" / events.FILE)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / events.FILE
    path.write_text("{")
    assert list(events.families(events.read(path))) == []
    events.mark_deploy(path)
    assert events.read(path).deployed_at is not None
