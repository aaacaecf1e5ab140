"""What a migration survives: a full disk, a broken checkpoint, a second run, and more rows than memory."""

from __future__ import annotations

import json
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from plinth.migrate import transfer
from plinth.migrate.checkpoint import State
from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, Server
from tests.migrated import Ran, plinth, vectors

pytestmark = [pytest.mark.requirement("S3-05"), pytest.mark.timeout(300)]


@pytest.fixture
def target(embedded: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    return embedded()


def matrix(path: Path, count: int, size: int = 16) -> Path:
    np.save(path, vectors(count, size))
    return path


def arguments(target: Server, path: Path, state: Path, *more: object, collection: str = "c") -> tuple[object, ...]:
    where = ("--to", target.url, "--collection", collection, "--state", state)
    return ("migrate", "file", path, "--distance", "euclid", *where, *more)


def apart(run: Callable[[], Any]) -> Any:
    """What a function returns in a process of its own, which it may limit or measure."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(run()))
    child.start()
    sender.close()
    answer = receiver.recv()
    child.join()
    return answer


def test_a_full_disk_ends_it_with_a_sentence_and_it_goes_on(
    target: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows that are rejected fill the file of rejects; a limit on its size is what a full disk is to a process.
    rows = vectors(3000)
    rows[::2] = np.nan
    np.save(tmp_path / "a.npy", rows)
    monkeypatch.setattr(transfer, "SAVE_EVERY_S", 0.0)
    whole = arguments(target, tmp_path / "a.npy", tmp_path / "s", "--max-rejects", 3000)

    def limited() -> Ran:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return plinth(*whole)

    full = apart(limited)
    assert (full.exit_code, "make room" in full.said) == (1, True), full
    kept = State(tmp_path / "s").load()
    assert kept is not None
    assert 0 < kept.progress.read < 3000
    done = plinth(*whole)
    report = json.loads((tmp_path / "s" / "report.json").read_text())
    assert (done.exit_code, report["rejected"], report["equal"], report["missing"]) == (1, 1500, 1500, 0)
    rejects = [json.loads(line)["key"] for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()]
    assert rejects == list(range(0, 3000, 2))


def test_a_checkpoint_that_is_broken_or_of_another_version_is_not_guessed_at(target: Server, tmp_path: Path) -> None:
    run = arguments(target, matrix(tmp_path / "a.npy", 50), tmp_path / "s")
    assert plinth(*run).exit_code == 0
    checkpoint = tmp_path / "s" / "checkpoint.json"
    assert checkpoint.stat().st_mode & 0o077 == 0
    whole = checkpoint.read_text()
    checkpoint.write_text(whole[:100])
    broken = plinth(*run)
    assert (broken.exit_code, "--restart" in broken.said) == (2, True)
    checkpoint.write_text(json.dumps({**json.loads(whole), "format": 99}))
    assert "another version" in plinth(*run).said
    checkpoint.unlink()
    verify = plinth("migrate", "verify", "--to", target.url, "--collection", "c", "--state", tmp_path / "s")
    assert (verify.exit_code, "no checkpoint" in verify.said) == (2, True)


def test_two_runs_do_not_share_a_checkpoint(target: Server, tmp_path: Path) -> None:
    run = arguments(target, matrix(tmp_path / "a.npy", 50), tmp_path / "s")
    with State(tmp_path / "s").held():
        second = plinth(*run)
    assert (second.exit_code, "Another migration" in second.said) == (1, True)


def test_points_that_somebody_removed_are_not_counted_as_written(target: Server, tmp_path: Path) -> None:
    run = arguments(target, matrix(tmp_path / "a.npy", 50), tmp_path / "s")
    assert plinth(*run).exit_code == 0
    with Qdrant(target.url, KEY) as client:
        client.call("DELETE", "/collections/c")
    gone = plinth(*run)
    assert (gone.exit_code, "--restart" in gone.said) == (1, True)
    assert plinth(*run, "--restart").exit_code == 0


def test_a_restart_gives_back_the_graph_that_was_put_off(
    target: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = vectors(2000)
    rows[1000:] = np.nan
    np.save(tmp_path / "a.npy", rows)
    run = arguments(target, tmp_path / "a.npy", tmp_path / "s")
    stopped = plinth(*run, "--max-rejects", 10)
    assert (stopped.exit_code, "--max-rejects" in stopped.said) == (1, True)
    with Qdrant(target.url, KEY) as client:
        assert (client.collection("c") or {})["config"]["hnsw_config"]["m"] == 0
        plinth(*run, "--restart", "--max-rejects", 2000)
        assert (client.collection("c") or {})["config"]["hnsw_config"]["m"] == 16


def test_points_that_were_there_stay_and_keep_their_graph(target: Server, tmp_path: Path) -> None:
    with Qdrant(target.url, KEY) as client:
        client.call("PUT", "/collections/c", {"vectors": {"size": 16, "distance": "Euclid"}})
        client.call("PUT", "/collections/c/points?wait=true", {"points": [{"id": 999, "vector": [1.0] * 16}]})
        ran = plinth(*arguments(target, matrix(tmp_path / "a.npy", 300), tmp_path / "s"))
        assert ran.exit_code == 0, ran
        assert "holds 1 points already" in ran.said
        assert (client.collection("c") or {})["points_count"] == 301


def test_memory_does_not_grow_with_the_rows(target: Server, tmp_path: Path) -> None:
    def growth(count: int) -> float:
        path = matrix(tmp_path / f"{count}.npy", count, 8)

        def run() -> tuple[int, int]:
            before = psutil.Process().memory_info().rss
            code = plinth(*arguments(target, path, tmp_path / f"s{count}", collection=f"c{count}")).exit_code
            return code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before

        code, grown = apart(run)
        assert code == 0
        return float(grown)

    # Five times the rows: whoever kept them would take five times as much.
    few = growth(10_000)
    assert growth(50_000) < 2 * few
    assert (tmp_path / "s50000" / "checkpoint.json").stat().st_size < 10_000
