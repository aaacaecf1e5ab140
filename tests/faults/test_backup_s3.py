"""A repository in S3, on a server on loopback that checks signatures: made, read, proven; refused in one sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plinth.backup import drill, inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.repository.restic import Restic
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError, working
from plinth.system.tls import issue, make_authority
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
    taken = backup_run.run(made.config, made.say)
    assert taken.manifest.failures == ()
    assert list((s3.directory / BUCKET / "plinth" / "snapshots").iterdir())
    assert inspection.verify(made.config, made.say).problems == ()
    inspection.check(made.config, made.say)
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
        backup_run.run(made.config, made.say)
    with pytest.raises(BackupError, match=words):
        inspection.sets(made.config, made.say)
    assert "\n" not in str(refused.value)
    assert made.state.backup
    assert made.state.backup.result == "failed"
    assert SECRET not in made.state.backup.detail
    assert [each.name for each in s3.directory.iterdir()] == [BUCKET]


@pytest.mark.requirement("S1-06")
def test_a_server_whose_certificate_an_own_authority_signed_is_trusted_by_its_file_alone(
    place: Path, live: Live
) -> None:
    authority = make_authority("the site's own")
    server = S3(place / "s3-tls" / "data", free_port(), issue(authority, "s3", ["127.0.0.1"]))
    server.start()
    try:
        ca = place / "s3-tls" / "ca.pem"
        ca.write_text(authority.cert)
        made = in_s3(place / "to-s3-tls", live, server, ca_file=str(ca))
        made.settings |= {"qdrant": None, "postgres": None}
        assert backup_run.run(made.config, made.say).manifest.complete
        assert inspection.verify(made.config, made.say).problems == ()
        unknown = in_s3(place / "s3-untrusted", live, server)
        with pytest.raises(BackupError, match=r"is not trusted \(.*name who signed for it in plinth:backup\.ca_cert"):
            backup_run.run(unknown.config, unknown.say)
        ca.write_text("no certificate")
        with pytest.raises(BackupError, match=r"No authority can be read for the server .*plinth:backup\.ca_cert"):
            backup_run.run(made.config, made.say)
    finally:
        server.stop()


def test_an_upload_goes_no_faster_than_it_may(place: Path, live: Live, s3: S3) -> None:
    seconds = []
    for number, limit in enumerate(({}, {"limit_upload_kib": 200})):
        directory = place / f"upload-{number}"
        made = in_s3(directory, live, s3, **limit)
        made.settings["repository"]["location"] += str(number)
        (directory / "noise").write_bytes(os.urandom(3 << 20))
        with working(made.config, made.say) as work:
            restic = Restic(work)
            restic.open_or_make()
            began = time.monotonic()
            restic.save(directory / "noise", complete=True)
            seconds.append(time.monotonic() - began)
    # A quarter of a minute for three MiB, whatever else the machine does.
    assert seconds[1] > 2 * seconds[0]


def test_a_server_that_is_down_is_one_sentence(place: Path, live: Live, s3: S3) -> None:
    nowhere = S3(s3.directory, free_port())
    made = in_s3(place / "down", live, nowhere)
    with pytest.raises(
        BackupError, match=rf"The server of s3:{nowhere.url}/\S+ does not answer \(.*refused.*bring it back"
    ):
        backup_run.run(made.config, made.say)
