"""A repository that the machine which makes the backups cannot delete: restic's rest-server, append-only."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.backup import inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.repository.prune_login import read_login, with_prune_login
from plinth.backup.repository.restic import Restic
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError, working
from plinth.errors import UserError
from tests.conftest import ROOT, free_port
from tests.faults.world import Backups, Live

BUILT = ROOT / ".plinth" / "bin" / "rest-server"
REST_SERVER = shutil.which("rest-server") or (str(BUILT) if BUILT.exists() else None)
pytestmark = pytest.mark.skipif(REST_SERVER is None, reason="no rest-server: run scripts/rest-server-binary")
# Passwords that a URL, a log or a careless line would spoil or show.
WRITER, PRUNER = ("writer", "p@ss:w/rd %#?"), ("pruner", "prune-password")


@dataclass
class RestServer:
    """One directory of repositories, behind two doors: one that only takes, and one that deletes too."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        for door, login, options in (("append", WRITER, ["--append-only"]), ("prune", PRUNER, [])):
            passwords = self.directory.parent / f"{door}.htpasswd"
            hashed = base64.b64encode(hashlib.sha1(login[1].encode()).digest()).decode()
            passwords.write_text(f"{login[0]}:{{SHA}}{hashed}\n")
            self.ports[door] = free_port()
            with (self.directory.parent / "rest.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        [
                            str(REST_SERVER),
                            "--path",
                            str(self.directory),
                            "--listen",
                            f"127.0.0.1:{self.ports[door]}",
                            "--htpasswd-file",
                            str(passwords),
                            *options,
                        ],
                        stdout=log,
                        stderr=log,
                    )
                )
            end = time.monotonic() + 60
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{self.ports[door]}/", timeout=2, trust_env=False)
                    break
                except httpx.HTTPError:
                    assert time.monotonic() < end
                    time.sleep(0.05)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(30)

    def location(self, door: str, name: str) -> str:
        return f"rest:http://127.0.0.1:{self.ports[door]}/{name}"


@pytest.fixture(scope="module")
def rest(place: Path) -> Iterator[RestServer]:
    (place / "rest" / "data").mkdir(parents=True)
    server = RestServer(place / "rest" / "data")
    server.start()
    yield server
    server.stop()


def on_server(directory: Path, live: Live, rest: RestServer, **more: Any) -> Backups:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "rest-password").write_text(more.pop("password", WRITER[1]))
    repository = {
        "location": rest.location("append", directory.name),
        "password_file": str(directory / "password"),
        "environment": {"RESTIC_REST_USERNAME": WRITER[0]},
        "environment_files": {"RESTIC_REST_PASSWORD": str(directory / "rest-password")},
    }
    return Backups(directory, live, {"repository": repository, "append_only": True, "qdrant": None, **more})


def login_file(directory: Path, rest: RestServer) -> Path:
    file = directory / "prune.env"
    file.write_text(
        f"# The pruner.\nRESTIC_REST_USERNAME={PRUNER[0]}\nRESTIC_REST_PASSWORD={PRUNER[1]}\n"
        f"RESTIC_REPOSITORY={rest.location('prune', directory.name)}\n"
    )
    file.chmod(0o600)
    return file


@pytest.mark.requirement("S1-06")
def test_who_holds_the_environment_s_login_cannot_delete_a_set_and_the_pruner_can(
    place: Path, live: Live, rest: RestServer
) -> None:
    made = on_server(place / "append", live, rest, keep={"daily": 1, "weekly": 0, "monthly": 0})
    snapshots = [backup_run.run(made.config, made.say).snapshot for _ in range(2)]
    assert any("append-only" in line for line in made.progress)
    with working(made.config, made.say) as work:
        restic = Restic(work)
        with pytest.raises(BackupError):
            restic.drop(snapshots[0])
        assert [snapshot.id for snapshot in restic.snapshots()] == snapshots
        restic.check(1, 1)
    with pytest.raises(BackupError, match=r"append-only.*--login"):
        inspection.prune(made.config, made.say)

    # Within a day all sets stay, so the first is made older where the server keeps it.
    login = login_file(made.directory, rest)
    inspection.prune(with_prune_login(made.config, login), made.say)
    assert [entry["snapshot"] for entry in reversed(made.sets())] == snapshots
    assert restore.run(made.config, made.config, Wish(stores=("redis",), replace=True), made.say).done
    everything = "".join(made.progress) + made.file.read_text()
    assert all(password not in everything for _, password in (WRITER, PRUNER))


def test_a_pruner_removes_what_is_old_and_nothing_where_a_set_is_dated_ahead(
    place: Path, live: Live, rest: RestServer
) -> None:
    made = on_server(place / "dated", live, rest, keep={"daily": 1, "weekly": 0, "monthly": 0}, postgres=None)
    kept = backup_run.run(made.config, made.say).snapshot
    pruner = with_prune_login(made.config, login_file(made.directory, rest))

    def add(when: str) -> None:
        with working(pruner, made.say) as work:
            restic = Restic(work)
            restic.open()
            made.directory.joinpath("manifest.json").write_text("{}")
            restic._succeed(
                "backup", "--host", "t", "--tag", "t,complete", "--time", when, str(made.directory / "manifest.json")
            )

    add("2020-01-01 00:00:00")
    inspection.prune(pruner, made.say)
    assert [entry["snapshot"] for entry in made.sets()] == [kept]
    # Whoever may add sets could date one ahead, so that retention counts from it and removes the true ones.
    add("2099-01-01 00:00:00")
    with pytest.raises(BackupError, match=r"is dated 2099-01-01 00:00 UTC.*nothing was removed"):
        inspection.prune(pruner, made.say)
    assert len(made.sets()) == 2


def test_a_wrong_login_is_one_sentence_at_once(place: Path, live: Live, rest: RestServer) -> None:
    made = on_server(place / "wrong", live, rest, password="wrong")
    with pytest.raises(BackupError, match=r"refuses the login; correct plinth:backup\.rest") as refused:
        backup_run.run(made.config, made.say)
    assert "wrong@" not in str(refused.value)
    assert made.state.backup
    assert made.state.backup.result == "failed"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("RESTIC_REST_USERNAME=x", 0o640, "chmod 600"),
        ("RESTIC_REST_USERNAME=x", 0o604, "chmod 600"),
        ("LD_PRELOAD=/tmp/x.so", 0o600, "no login"),
        ("RESTIC_PASSWORD_COMMAND=id", 0o600, "no login"),
        ("anything", 0o600, "no login"),
    ],
)
def test_a_login_file_is_its_owner_s_alone_and_sets_logins_alone(
    tmp_path: Path, content: str, mode: int, message: str
) -> None:
    file = tmp_path / "login"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(UserError, match=message):
        read_login(file)
    file.chmod(0o600)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_login(tmp_path / "link")
