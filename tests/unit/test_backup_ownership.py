"""Whose the backups' directories are once an account makes the backups: given over, made, or refused with the line."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plinth.backup.config import Config, Repository
from plinth.backup.temporary import launcher
from plinth.errors import UserError

NAME = "nobody"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories to others")


@pytest.fixture
def own() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="plinth-own-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory) / "plinth-backup"


def config(own: Path, repository: Path | None = None, work: str = "work") -> Config:
    location = str(repository or own / "repository")
    return Config(
        directory=own / work,
        state=own / "state" / "backups.json",
        repository=Repository(location=location, password_file=own / "password"),
    )


def give_over(wanted: Config) -> None:
    launcher._give_over(wanted, NAME, launcher._account(NAME))


def owners(directory: Path) -> set[str]:
    return {path.owner() for path in (directory, *directory.rglob("*"))}


def test_what_is_missing_is_made_and_what_was_roots_is_given(own: Path) -> None:
    give_over(config(own))
    assert {path.name: path.owner() for path in own.iterdir()} == dict.fromkeys(("work", "state", "repository"), NAME)
    assert own.owner() == "root"
    for path in (own / "work" / "stage" / "a", own / "repository" / "data" / "b"):
        path.parent.mkdir(parents=True)
        path.write_text("of root")
        for each in (path, *path.parents):
            if each.is_relative_to(own) and each != own:
                os.chown(each, 0, 0)
    (own / "work" / "link").symlink_to("/etc/passwd")
    give_over(config(own))
    assert owners(own / "repository") == {NAME}
    assert (own / "work" / "stage" / "a").owner() == NAME
    assert Path("/etc/passwd").owner() == "root"


def test_a_repository_elsewhere_is_not_given_but_named(own: Path, tmp_path: Path) -> None:
    elsewhere = own.parent / "elsewhere"
    with pytest.raises(UserError, match=f"install -d -m 0700 -o {NAME} {elsewhere}"):
        give_over(config(own, elsewhere))
    elsewhere.mkdir()
    with pytest.raises(UserError, match=f"chown -hR {NAME}: {elsewhere}"):
        give_over(config(own, elsewhere))
    assert elsewhere.owner() == "root"
    os.chown(elsewhere, pwd.getpwnam(NAME).pw_uid, -1)
    give_over(config(own, elsewhere))


def test_a_link_in_the_place_of_a_directory_is_refused(own: Path) -> None:
    own.mkdir()
    (own / "work").symlink_to("/etc")
    with pytest.raises((UserError, OSError)):
        give_over(config(own))
    assert Path("/etc").owner() == "root"


def test_root_touches_nothing_in_what_is_the_accounts(own: Path) -> None:
    give_over(config(own))
    (own / "work" / "prune").symlink_to("/etc")
    give_over(config(own, own.parent / "elsewhere", "work/prune"))
    assert Path("/etc").owner() == "root"
