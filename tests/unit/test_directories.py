"""What root makes and gives away, with real files: owners and modes under any umask, and links that lead nowhere."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plinth.errors import UserError
from plinth.paths import Home, remember_deployed
from plinth.resources.certificate import kept_authority
from plinth.resources.secret import kept_secret
from plinth.system.accounts import become
from plinth.system.atomic_files import write_whole
from plinth.system.private_directories import (
    Access,
    give,
    has_access,
    make_volume,
    opened,
    purge,
    remove_tree,
    replace_tree,
)
from plinth.targets.local.process import ProcessSpec, start, stop
from tests.accounts import as_account, needs_accounts

QDRANT, REDIS = "plinth-qdrant", "plinth-redis"
UMASKS = (0o000, 0o022, 0o027, 0o077)


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not pytest's own directory, which it closes to other accounts."""
    with tempfile.TemporaryDirectory(prefix="plinth-directories-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The place of an environment, below a directory that is not its own."""
    return tmp_path / "base" / "t"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory with a file, which nobody but root may touch."""
    made = tmp_path / "victim"
    made.mkdir(mode=0o755)
    (made / "file").write_text("as it was")
    return made


def seen(path: Path) -> dict[str, tuple[int, int, int, str]]:
    """Owner, mode and content of all that there is."""
    return {
        str(entry.relative_to(path)): (
            (status := entry.lstat()).st_uid,
            status.st_gid,
            status.st_mode,
            entry.read_text() if stat.S_ISREG(status.st_mode) else "",
        )
        for entry in (path, *path.rglob("*"))
    }


def modes(path: Path) -> dict[str, int]:
    return {name: stat.S_IMODE(mode) for name, (_, _, mode, _) in seen(path).items()}


def own(mode: int) -> Access:
    return Access(os.geteuid(), os.getegid(), mode)


def of(account: str, mode: int = 0o700) -> Access:
    owner = pwd.getpwnam(account)
    return Access(owner.pw_uid, owner.pw_gid, mode)


def test_directories_on_the_way_and_files_have_their_modes_whatever_the_umask(place: Path, umask: int) -> None:
    with opened(place / "run" / "config", place) as config:
        replace_tree(config, "grafana", {"grafana.ini": "x", "provisioning/data sources/plinth.yaml": "y"}, own(0o750))
    with opened(place / "data" / "qdrant", place) as data:
        assert make_volume(data, "storage", own(0o700)) is True
        assert make_volume(data, "storage", own(0o700)) is False
    with opened(place / "run" / "programs", place, 0o700):
        pass
    write_whole(place / "run" / "programs" / "x.conf", "z")
    assert modes(place) == {
        ".": 0o711,
        "run": 0o711,
        "run/config": 0o711,
        "run/config/grafana": 0o750,
        "run/config/grafana/grafana.ini": 0o640,
        "run/config/grafana/provisioning": 0o750,
        "run/config/grafana/provisioning/data sources": 0o750,
        "run/config/grafana/provisioning/data sources/plinth.yaml": 0o640,
        "run/programs": 0o700,
        "run/programs/x.conf": 0o600,
        "data": 0o711,
        "data/qdrant": 0o711,
        "data/qdrant/storage": 0o700,
    }
    # What had to be made above the place as well.
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o711


def test_what_is_kept_with_the_data_is_closed_whatever_the_umask(place: Path, umask: int) -> None:
    files = Home(place.parent, place)
    kept_secret(files.secrets, "postgres_password")
    remember_deployed(files, {})
    kept_authority(files.data / "tls", "Plinth")
    found = modes(place)
    assert found["data"] == 0o711
    assert found["data/tls"] == 0o700
    assert {found[f"data/{name}"] for name in ("secrets.json", "deployed.json", "tls/authority.json")} == {0o600}
    assert not [name for name, mode in found.items() if mode & 0o022]


def test_a_directory_that_was_open_to_all_is_closed_and_what_others_put_there_goes(place: Path) -> None:
    (place / "run").mkdir(parents=True)
    for directory in (place, place / "run"):
        directory.chmod(0o777)
    (place / "run" / "own").touch()
    with opened(place / "run", place) as run:
        purge(run)
    assert modes(place)["run"] == 0o711
    assert (place / "run" / "own").exists()


def test_a_link_in_the_place_is_refused_and_one_above_it_is_followed(place: Path, victim: Path) -> None:
    place.mkdir(parents=True)
    before = seen(victim)
    (place / "run").symlink_to(victim)
    with (
        pytest.raises(UserError, match=r"t/run is a link or a file where a directory must be"),
        opened(place / "run", place),
    ):
        pass
    (place / "run").unlink()
    (place / "run").touch()
    with pytest.raises(UserError, match="is a link or a file"), opened(place / "run" / "config", place):
        pass
    elsewhere = place.parent.with_name("by another name")
    elsewhere.symlink_to(place.parent)
    with opened(elsewhere / "t" / "data", elsewhere / "t"):
        pass
    assert (place / "data").is_dir()
    assert seen(victim) == before


def test_a_tree_is_replaced_whole_and_what_it_was_is_removed_as_links(place: Path, victim: Path) -> None:
    before = seen(victim)
    with opened(place, place) as parent:
        replace_tree(parent, "c", {"old": "1", "deep/old": "1"}, own(0o700))
        (place / "c" / "link").symlink_to(victim)
        (place / "c" / "deep" / "link").symlink_to(victim / "file")
        replace_tree(parent, "c", {"new": "2"}, own(0o700))
        assert modes(place / "c") == {".": 0o700, "new": 0o600}
        remove_tree(parent, "c")
        (place / "c").symlink_to(victim)
        replace_tree(parent, "c", {"new": "3"}, own(0o700))
        assert (place / "c" / "new").read_text() == "3"
        assert [path.name for path in place.iterdir()] == ["c"]
    assert seen(victim) == before


def test_one_that_cannot_be_written_leaves_the_old_one(place: Path) -> None:
    with opened(place, place) as parent:
        replace_tree(parent, "c", {"f": "1"}, own(0o700))
        with pytest.raises(UnicodeEncodeError):
            replace_tree(parent, "c", {"f": "\udcff"}, own(0o700))
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == ["c", "c/f"]


def test_writing_whole_never_goes_through_a_link_that_could_be_guessed(tmp_path: Path, victim: Path) -> None:
    before = seen(victim)
    path = tmp_path / "redis.conf"
    for name in (".redis.conf.partial", "redis.conf", ".redis.conf"):
        (tmp_path / name).symlink_to(victim / "file")
    write_whole(path, "new")
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert seen(victim) == before


@needs_accounts
@pytest.mark.parametrize("reader", [None, REDIS])
def test_a_volume_of_another_account_is_given_with_all_in_it_and_links_as_links(
    place: Path, victim: Path, reader: str | None
) -> None:
    before = seen(victim)
    access = of(QDRANT) if reader is None else Access(of(QDRANT).uid, of(reader).gid, 0o2750)
    with opened(place / "qdrant", place) as parent:
        make_volume(parent, "storage", of("nobody"))
        volume = place / "qdrant" / "storage"
        as_account(
            "nobody",
            f"mkdir -p {volume}/a/b; echo x >{volume}/a/b/f; ln -s {victim} {volume}/a/dir; mkfifo {volume}/pipe;"
            f"ln -s {victim}/file {volume}/file; ln -s /etc/shadow {volume}/a/b/shadow",
        )
        assert not has_access(parent, "storage", access)
        give(parent, "storage", access, volume)
        assert has_access(parent, "storage", access)
    found = seen(volume)
    assert {(uid, gid) for uid, gid, _, _ in found.values()} == {(access.uid, access.gid)}
    if reader:
        assert as_account(reader, f"cat {volume}/a/b/f").stdout == "x\n"
        assert as_account(reader, f"echo y >{volume}/a/b/f").returncode
    assert as_account("nobody", f"ls {volume}").returncode
    assert seen(victim) == before


@needs_accounts
def test_a_file_with_a_second_name_is_refused_by_name_and_the_next_time_goes_on(place: Path, victim: Path) -> None:
    before = seen(victim)
    with opened(place / "qdrant", place) as parent:
        make_volume(parent, "storage", of("nobody"))
        volume = place / "qdrant" / "storage"
        (volume / "innocent").touch()
        (volume / "deep").mkdir()
        (volume / "deep" / "hard").hardlink_to(victim / "file")
        with pytest.raises(UserError, match=rf"{volume}/deep/hard has another name elsewhere \(a hard link\)"):
            give(parent, "storage", of(QDRANT), volume)
        assert not has_access(parent, "storage", of(QDRANT))
        (volume / "deep" / "hard").unlink()
        give(parent, "storage", of(QDRANT), volume)
        assert has_access(parent, "storage", of(QDRANT))
    assert (victim / "file").stat().st_uid == before["file"][0]


@needs_accounts
@pytest.mark.parametrize("how", ["its own", "its group's", "everybody's"])
def test_root_keeps_no_files_below_a_directory_that_a_service_can_change(tmp_path: Path, how: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    if how == "its own":
        os.chown(shared, of(REDIS).uid, 0)
    if how == "its group's":
        os.chown(shared, 0, of(REDIS).gid)
        shared.chmod(0o775)
    if how == "everybody's":
        shared.chmod(0o777)
    with (
        pytest.raises(UserError, match=rf"{shared} can be written by others than root"),
        opened(shared / "base" / "t" / "run", shared / "base" / "t"),
    ):
        pass
    shared.chmod(0o1777)
    if how == "everybody's":
        with opened(shared / "base" / "t" / "run", shared / "base" / "t"):
            pass


@needs_accounts
def test_config_is_roots_and_its_account_reads_it_alone(tmp_path: Path, umask: int) -> None:
    run = tmp_path / "run"
    volume = tmp_path / "data" / "p" / "v"
    spec = ProcessSpec(
        "p", str(run), f"{run}/config/p", ("/bin/sleep", "1000"), (str(volume),), user=QDRANT, owner=QDRANT
    )
    start(spec, {"p.conf": "key", "deep/p.conf": "key"})
    try:
        gid = of(QDRANT).gid
        config = {
            name: (uid, group, stat.S_IMODE(mode)) for name, (uid, group, mode, _) in seen(run / "config" / "p").items()
        }
        assert config == {
            ".": (0, gid, 0o750),
            "p.conf": (0, gid, 0o640),
            "deep": (0, gid, 0o750),
            "deep/p.conf": (0, gid, 0o640),
        }
        assert as_account(QDRANT, f"cat {run}/config/p/deep/p.conf && touch {volume}/mine").returncode == 0
        assert as_account(REDIS, f"cat {run}/config/p/p.conf || ls {volume} || ls {run}").returncode
        for path in ("config/p/p.conf", "config/p/new", "config/new", "programs/zz.conf", "new", "../new", "logs/new"):
            assert as_account(QDRANT, f"echo x >>{run}/{path}").returncode, path
        assert not [path for path in run.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    finally:
        stop(spec)


@needs_accounts
def test_a_changed_setting_follows_no_link_that_the_service_left(tmp_path: Path, victim: Path) -> None:
    """C2: whoever is the service's account becomes root by links in its config directory and its volume."""
    before = seen(victim)
    run = tmp_path / "run"
    volume = tmp_path / "data" / "p" / "v"
    spec = ProcessSpec(
        "p", str(run), f"{run}/config/p", ("/bin/sleep", "1000"), (str(volume),), user=REDIS, owner=REDIS
    )
    start(spec, {"p.conf": "1"})
    try:
        for directory in (
            f"{run}/config/p",
            volume,
            volume.parent,
            run,
            f"{run}/config",
            f"{run}/programs",
            f"{run}/logs",
        ):
            for name, to in (
                ("x", victim),
                (".p.conf.partial", victim / "new"),
                ("p.conf", victim / "new"),
                ("log", victim / "new"),
            ):
                as_account(REDIS, f"ln -s {to} {directory}/{name}")
        assert (volume / "x").is_symlink()
        start(spec, {"p.conf": "2", "more.conf": "3"})
    finally:
        stop(spec)
    assert seen(victim) == before


@needs_accounts
def test_rights_are_given_up_for_good() -> None:
    child = os.fork()
    if not child:
        become(QDRANT)
        ids = os.getresuid() + os.getresgid()
        os._exit(0 if set(ids) == {of(QDRANT).uid, of(QDRANT).gid} and os.getgroups() == [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_accounts
def test_a_list_of_accounts_is_made_with_and_without_systemd() -> None:
    """scripts/accounts says nothing where all are there."""
    assert subprocess.run(["scripts/accounts"], capture_output=True, text=True, check=True).stdout == ""
