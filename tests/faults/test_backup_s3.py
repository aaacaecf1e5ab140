"""A repository in S3, on a server on loopback that checks signatures: made, read, proven; refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plinth.backup import drill, look, restore, take
from plinth.backup.source import Wish
from plinth.backup.work import BackupError
from tests.conftest import free_port
from tests.faults.world import POINTS, Backups, Live
from tests.s3 import BUCKET, KEY_ID, S3, SECRET


@pytest.fixture(scope="module")
def s3(place: Path) -> Iterator[S3]:
    server = S3(place / "s3" / "data", free_port())
    server.start()
    yield server
    server.stop()


def in_s3(directory: Path, live: Live, s3: S3, *, bucket: str = BUCKET, key: str = SECRET, **more: Any) -> Backups:
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in (("key_id", KEY_ID), ("secret", key)):
        (directory / name).write_text(value)
    repository = {
        "location": f"s3:{s3.url}/{bucket}/plinth",
        "password_file": str(directory / "password"),
        "environment_files": {
            "AWS_ACCESS_KEY_ID": str(directory / "key_id"),
            "AWS_SECRET_ACCESS_KEY": str(directory / "secret"),
        },
        **more,
    }
    return Backups(directory, live, {"repository": repository})


@pytest.mark.requirement("S1-06")
def test_a_set_goes_to_s3_and_comes_back_on_a_machine_that_knows_only_where_it_is(
    place: Path, live: Live, s3: S3
) -> None:
    made = in_s3(place / "to-s3", live, s3, limit_upload_kib=20_000)
    taken = take.run(made.config, made.say)
    assert taken.manifest.failures == ()
    assert list((s3.directory / BUCKET / "plinth" / "snapshots").iterdir())
    assert look.verify(made.config, made.say).problems == ()
    look.check(made.config, made.say)
    # Another machine: no cache, no record of the repository.
    there = in_s3(place / "from-s3", live, s3)
    (only,) = there.sets()
    assert (only["complete"], only["points"]["trades_v1"]) == (True, POINTS)
    assert drill.run(there.config, there.say).result == "ok"
    (said,) = restore.run(there.config, there.config, Wish(collections=("trades_v1",), beside=True), there.say).done
    with live.node as node:
        copy = next(name for name in node.collections() if name.startswith("trades_v1__"))
        assert copy in said
        assert node.count(copy) == POINTS
        node.call("DELETE", f"/collections/{copy}")
    assert SECRET not in "".join(made.progress + there.progress)


@pytest.mark.parametrize("region", [{}, {"environment": {"AWS_DEFAULT_REGION": "eu-west-1"}}])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"key": "wrong"}, r"refuses the key; correct plinth:backup\.s3"),
        ({"bucket": "backupz"}, r"There is no bucket for the repository .*/backupz/plinth; make it first"),
    ],
)
def test_what_the_server_refuses_is_one_sentence_and_makes_nothing(
    place: Path, live: Live, s3: S3, request: pytest.FixtureRequest, region: Any, wrong: Any, words: str
) -> None:
    made = in_s3(place / f"refused-{len(list(place.iterdir()))}", live, s3, **wrong, **region)
    with pytest.raises(BackupError, match=words) as refused:
        take.run(made.config, made.say)
    with pytest.raises(BackupError, match=words):
        look.sets(made.config, made.say)
    assert "\n" not in str(refused.value)
    assert made.state.backup
    assert made.state.backup.result == "failed"
    assert SECRET not in made.state.backup.detail
    assert [each.name for each in s3.directory.iterdir()] == [BUCKET]


def test_a_server_that_is_down_is_one_sentence(place: Path, live: Live, s3: S3) -> None:
    nowhere = S3(s3.directory, free_port())
    made = in_s3(place / "down", live, nowhere)
    with pytest.raises(
        BackupError, match=rf"The server of s3:{nowhere.url}/\S+ does not answer \(.*refused.*bring it back"
    ):
        take.run(made.config, made.say)
