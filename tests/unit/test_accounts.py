"""The accounts that services run as: one each, all in the one list, made by the one script."""

from __future__ import annotations

import os
import pwd
from collections import Counter

import pytest

from plinth.errors import UserError
from plinth.services import Service
from plinth.settings.loader import parse
from plinth.system import accounts
from plinth.system.accounts import accounts_of, first_account
from tests.conftest import ROOT
from tests.services import services_of

LIST = ROOT / "config" / "sysusers" / "plinth.conf"
# Of what starts others under their accounts; it gives its own rights up by itself.
LAUNCHERS = {"plinth-backup"}
EVERYTHING = {
    "target": "local",
    "neo4j": {"enabled": True},
    "monitoring": {"grafana": {"enabled": True}, "loki": {"enabled": True}},
    "backup": {"enabled": True},
}


def listed() -> list[str]:
    return [line.split()[1] for line in LIST.read_text().splitlines() if line.startswith("u ")]


def every_service() -> list[Service]:
    return services_of(parse(EVERYTHING, source="x"))


def test_every_service_has_an_account_of_its_own_and_none_is_nobody() -> None:
    accounts = {service.name: service.run_as for service in every_service() if service.name not in LAUNCHERS}
    assert [name for name, candidates in accounts.items() if not candidates] == []
    shared = [
        name for name, times in Counter(name for names in accounts.values() for name in names).items() if times > 1
    ]
    assert shared == []
    assert "nobody" not in {name for names in accounts.values() for name in names}
    # What a package does not bring, the list does.
    assert {names[-1] for names in accounts.values()} <= set(listed())


def test_the_list_is_one_that_systemd_sysusers_reads() -> None:
    for line in LIST.read_text().splitlines():
        assert line.startswith(("#", "u plinth-")), line
        if line.startswith("u "):
            kind, name, number, rest = line.split(maxsplit=3)
            assert (kind, number) == ("u", "-")
            _, comment, after = rest.split('"')
            assert ":" not in comment
            assert after.split() == ["/nonexistent", "/usr/sbin/nologin"]
            assert len(name) < 32


def test_root_is_told_of_every_missing_account_at_once_and_no_one_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    here = pwd.getpwuid(os.getuid()).pw_name
    candidates = {"redis": ("no-such", "plinth-no-such"), "qdrant": ("plinth-neither",), "launcher": (), "x": (here,)}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert accounts_of(candidates) == dict.fromkeys(candidates)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(
        UserError, match=r"no account plinth-no-such, plinth-neither for redis, qdrant.*scripts/accounts"
    ):
        accounts_of(candidates)
    del candidates["redis"], candidates["qdrant"]
    assert accounts_of(candidates) == {"launcher": None, "x": here}


@pytest.fixture(params=["own", "package's"])
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    package = pwd.getpwuid(os.getuid()).pw_name if request.param == "package's" else "plinth-no-package"
    return package, pwd.getpwuid(os.getuid()).pw_name


def test_a_packages_account_comes_before_ours(names: tuple[str, ...]) -> None:
    assert first_account(names) == pwd.getpwuid(os.getuid()).pw_name


def test_the_command_that_is_named_exists() -> None:
    assert os.access(ROOT / accounts.COMMAND, os.X_OK)
