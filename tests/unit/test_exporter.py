"""The exporter's pure parts, and the file that backups leave for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from plinth.errors import UserError
from plinth.exporter.config import load_config
from plinth.exporter.metrics import Reading, active_replicas_min, described, families
from plinth.exporter.probe_queries import Question, recall
from plinth.qdrant.probe_vectors import moved
from plinth.status_files.backup_runs import Run, State, StateUnreadable, read, record

INFO = {
    "status": "yellow",
    "optimizer_status": {"error": "No space left"},
    "indexed_vectors_count": 7,
    "segments_count": 3,
    "config": {"params": {"replication_factor": 2}},
}
CLUSTER = {
    "local_shards": [{"shard_id": 0, "state": "Active"}, {"shard_id": 1, "state": "Active"}],
    "remote_shards": [{"shard_id": 0, "state": "Dead"}, {"shard_id": 1, "state": "Active"}],
}


def page(reading: Reading) -> set[str]:
    class Once(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            return families(reading)

    registry = CollectorRegistry()
    registry.register(Once())
    return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


def test_a_collection_is_one_colour_and_its_weakest_shard_counts() -> None:
    lines = page(Reading(1.0, 3, 2**30, {"trades_v1": described(INFO, CLUSTER, 42.0)}))
    assert {
        'plinth_collection_status{collection="trades_v1",status="yellow"} 1.0',
        'plinth_collection_status{collection="trades_v1",status="green"} 0.0',
        'plinth_collection_optimizer_ok{collection="trades_v1"} 0.0',
        'plinth_collection_active_replicas_min{collection="trades_v1"} 1.0',
        'plinth_collection_replication_factor{collection="trades_v1"} 2.0',
        'plinth_collection_last_snapshot_timestamp_seconds{collection="trades_v1"} 42.0',
        "plinth_qdrant_expected_peers 3.0",
    } <= lines


def test_a_server_without_a_cluster_has_no_number_of_replicas() -> None:
    assert active_replicas_min({"local_shards": [], "remote_shards": []}) is None
    assert not [line for line in page(Reading(1, 1, 0, {"c": described(INFO, None, None)})) if "replicas_min" in line]


def test_a_backup_that_never_ran_is_told_as_never_and_one_that_is_off_not_at_all() -> None:
    assert "plinth_backup_last_success_timestamp_seconds 0.0" in page(Reading(1, 1, 0, state=State()))
    assert not [line for line in page(Reading(1, 1, 0)) if "backup" in line]


def test_a_state_that_cannot_be_read_shows_no_age() -> None:
    lines = page(Reading(1, 1, 0, state=State(), state_readable=False))
    assert "plinth_backup_state_readable 0.0" in lines
    assert not [line for line in lines if "last_success" in line]


def test_a_failure_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "state" / "backups.json"
    assert read(path) == State()
    record(path, "backup", Run(attempted_at=100, duration_s=5, result="ok", stores={"qdrant": "ok"}, size_bytes=9))
    record(path, "backup", Run(attempted_at=200, duration_s=5, result="failed", stores={"qdrant": "failed"}))
    record(path, "drill", Run(attempted_at=300, duration_s=1, result="ok"))
    lines = page(Reading(1, 1, 0, state=read(path)))
    assert {
        "plinth_backup_last_success_timestamp_seconds 105.0",
        "plinth_backup_last_attempt_timestamp_seconds 200.0",
        'plinth_backup_last_result{result="failed"} 1.0',
        'plinth_backup_store_ok{store="qdrant"} 0.0',
        "plinth_drill_last_success_timestamp_seconds 301.0",
        "plinth_check_last_success_timestamp_seconds 0.0",
    } <= lines
    # By its directory the group is the exporter's account.
    assert path.stat().st_mode & 0o027 == 0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{", '{"version": 2}', '{"backup": {"result": "fine"}}'])
def test_a_damaged_state_is_a_sentence_and_the_next_run_mends_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "backups.json"
    path.write_text(text)
    with pytest.raises(StateUnreadable, match="run a backup to have it written anew"):
        read(path)
    record(path, "backup", Run(attempted_at=1, duration_s=1, result="ok"))
    assert read(path).backup is not None


def test_recall_is_the_mean_and_for_large_tenants_the_worst_of_them() -> None:
    def asked(scope: str, large: bool) -> Question:
        return Question((1.0,), ("user_id", scope), large)

    shares = [(asked("a", True), 1.0), (asked("a", True), 0.8), (asked("b", True), 0.5), (asked("c", False), 0.1)]
    assert recall(shares) == pytest.approx({"all": 0.6, "large_tenant": 0.5})
    assert recall(shares[3:]) == {"all": 0.1}
    assert recall([]) == {}


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50), st.text(max_size=5))
def test_a_question_is_near_its_point_not_on_it_and_the_same_every_time(vector: list[float], seed: str) -> None:
    question = moved(vector, seed)
    assert question == moved(vector, seed)
    length = float(np.linalg.norm(vector)) or 1.0
    assert float(np.linalg.norm(np.subtract(question, vector))) == pytest.approx(0.3 * length)


def test_a_wrong_configuration_names_its_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"listen": {"host": "127.0.0.1", "port": 1}, "qdrant": {"url": "x"}, "collections": []}))
    with pytest.raises(UserError, match=r"qdrant\.peers"):
        load_config(path)
