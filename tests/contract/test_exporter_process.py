"""The exporter as a process, against each engine: it sees collections, searches them, and says so when it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec
from plinth.status_files.backup_runs import Run, record
from tests.conftest import KEY, READ_ONLY_KEY, Server, free_port

TENANTS = CollectionSpec.model_validate(
    {
        "name": "exporter_tenants",
        "vectors": {"size": 16, "distance": "Cosine"},
        "hnsw_config": {"m": 0, "payload_m": 16},
        "payload_indexes": {"user_id": {"type": "keyword", "is_tenant": True}},
        "tenant": "user_id",
    }
)
EMPTY = TENANTS.model_copy(update={"name": "exporter_empty"})
MISSING = TENANTS.model_copy(update={"name": "exporter_missing"})


@pytest.fixture(scope="module")
def exporter(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    with Qdrant(server.url, KEY) as client:
        for spec in (TENANTS, EMPTY):
            converge(client, spec)
        vectors = np.random.default_rng(1).normal(size=(120, 16)).tolist()
        points = [
            {"id": row, "vector": vector, "payload": {"user_id": "big" if row % 3 else f"small-{row}"}}
            for row, vector in enumerate(vectors)
        ]
        client.call("PUT", f"/collections/{TENANTS.name}/points?wait=true", {"points": points})
        client.call("POST", f"/collections/{TENANTS.name}/snapshots")
        started = Exporter(server, tmp_path_factory.mktemp("exporter"))
        yield started
        started.process.terminate()
        started.process.wait(timeout=10)
        for spec in (TENANTS, EMPTY):
            client.call("DELETE", f"/collections/{spec.name}")


class Exporter:
    """A running exporter over a server, and its page."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.state = directory / "backups.json"
        (directory / "key").write_text(READ_ONLY_KEY)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/metrics"
        config = {
            "listen": {"host": "127.0.0.1", "port": port},
            "qdrant": {
                "url": server.url,
                "api_key_file": str(directory / "key"),
                "peers": 1,
                "memory_limit_bytes": 2**30,
            },
            "collections": [s.model_dump(mode="json", exclude_none=True) for s in (TENANTS, EMPTY, MISSING)],
            "backup_state": str(self.state),
            "pace": {"round_sec": 0.3, "recall_sec": 1},
        }
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "plinth.exporter", "--config-path", str(path)], stdout=log, stderr=log
            )

    def wait(self, wanted: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The samples once they are as wanted."""
        deadline, samples = time.monotonic() + 60, {}
        while True:
            try:
                lines = httpx.get(self.url).text.splitlines()
                pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
                samples = {name: float(value) for name, value in pairs}
            except httpx.HTTPError:
                pass
            if samples and wanted(samples):
                return samples
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (samples, self.log.read_text()[-2000:])
            time.sleep(0.1)


@pytest.mark.requirement("S2-03")
def test_collections_are_seen_with_their_snapshots(exporter: Exporter) -> None:
    samples = exporter.wait(lambda found: "plinth_exporter_last_round_timestamp_seconds" in found)
    assert samples['plinth_collection_optimizer_ok{collection="exporter_tenants"}'] == 1
    colours = {s: samples[f'plinth_collection_status{{collection="exporter_tenants",status="{s}"}}'] for s in STATUSES}
    assert sum(colours.values()) == 1
    age = time.time() - samples['plinth_collection_last_snapshot_timestamp_seconds{collection="exporter_tenants"}']
    # A wrong time zone would make it hours.
    assert -60 < age < 1800
    assert 'plinth_collection_last_snapshot_timestamp_seconds{collection="exporter_empty"}' not in samples


STATUSES = ("green", "yellow", "grey", "red")


def test_searches_are_tried_within_tenants_and_their_recall_is_told(exporter: Exporter) -> None:
    name = 'plinth_probe_recall_ratio{band="large_tenant",collection="exporter_tenants"}'
    samples = exporter.wait(lambda found: name in found)
    assert 0.5 < samples[name] <= 1
    assert samples['plinth_probe_search_duration_seconds_bucket{collection="exporter_tenants",le="+Inf"}'] >= 1
    # Qdrant's edges, so that the two can be laid over each other.
    assert 'plinth_probe_search_duration_seconds_bucket{collection="exporter_tenants",le="0.05"}' in samples
    assert 'plinth_probe_recall_ratio{band="all",collection="exporter_empty"}' not in samples
    assert samples['plinth_probe_searches_total{collection="exporter_empty",result="ok"}'] >= 1


def test_a_collection_that_is_not_there_fails_its_searches_and_nobody_elses(exporter: Exporter) -> None:
    failed = 'plinth_probe_searches_total{collection="exporter_missing",result="error"}'
    samples = exporter.wait(lambda found: found.get(failed, 0) >= 2)
    assert samples['plinth_probe_searches_total{collection="exporter_missing",result="ok"}'] == 0
    assert samples['plinth_probe_searches_total{collection="exporter_tenants",result="error"}'] == 0
    assert READ_ONLY_KEY not in exporter.log.read_text()


def test_what_backups_wrote_is_shown_and_a_damaged_file_is_told(exporter: Exporter) -> None:
    exporter.wait(lambda found: found.get("plinth_backup_last_success_timestamp_seconds") == 0)
    record(exporter.state, "backup", Run(attempted_at=1000, duration_s=10, result="ok"))
    exporter.wait(lambda found: found.get("plinth_backup_last_success_timestamp_seconds") == 1010)
    exporter.state.write_text("{")
    samples = exporter.wait(lambda found: found.get("plinth_backup_state_readable") == 0)
    assert "plinth_backup_last_success_timestamp_seconds" not in samples
    exporter.state.unlink()


def test_labels_are_few(exporter: Exporter) -> None:
    samples = exporter.wait(lambda found: "plinth_exporter_last_round_timestamp_seconds" in found)
    assert len([name for name in samples if 'collection="exporter_tenants"' in name]) < 40
