"""Every kind of restic repository, with and without a secret in its address."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup.repository.reachability import with_login
from plinth.deployment.preflight import preflight
from plinth.errors import UserError
from plinth.settings.loader import parse
from plinth.settings.repository_address import holds_secret, login_in, masked
from tests.conftest import ROOT

SECRETS = {
    "s3:AKIA123:abc@host/bucket": "s3:***@host/bucket",
    "s3:AKIA123:ab/c+d=@host/bucket": "s3:***@host/bucket",
    "s3://AKIA123:abc@host/bucket": "s3://***@host/bucket",
    "s3:https://AKIA123:abc@host:9000/bucket": "s3:https://***@host:9000/bucket",
    "s3:http:AKIA123:abc@host/bucket": "s3:http:***@host/bucket",
    "s3:https://token@host/bucket": "s3:https://***@host/bucket",
    "rest:https://user:hunter2@host:8000/name": "rest:https://***@host:8000/name",
    "rest:https://token@host": "rest:https://***@host",
    "rest:http://user:p@ss@host/": "rest:http://***@host/",
    "rest:https://user:pa/ss@host/": "rest:https://***@host/",
    "rest:https://:hunter2@host/": "rest:https://***@host/",
    "rest:https://host:8000/name?token=abc": "rest:https://host:8000/name?***",
    "sftp:user:hunter2@host:/srv": "sftp:***@host:/srv",
    "sftp://user:hunter2@host:22//srv": "sftp://***@host:22//srv",
    "b2:id:key@bucket:prefix": "b2:***@bucket:prefix",
    "azure:account:key@container:/": "azure:***@container:/",
    "swift:user:key@container:/": "swift:***@container:/",
    "gs:token@bucket:/": "gs:***@bucket:/",
    "rclone:remote,pass=secret:path": "rclone:remote,***",
    "rclone::sftp,host=h,pass=secret:path": "rclone::sftp,***",
    "https://user:hunter2@host/": "https://***@host/",
}
PLAIN = (
    *("/srv/backups", "local:/srv/backups", "backups/here", "/srv/a@b", "local:/srv/u:p@h"),
    *("sftp:user@host:/srv", "sftp:host:/srv/a@b", "sftp://user@host:22//srv", "sftp:user@host:srv/a:b@c"),
    *(
        "rest:https://host:8000/name",
        "rest:http://127.0.0.1:8000/",
        "rest:https://host:8000/a@b",
        "rest:https://host/a@b",
    ),
    *(
        "s3:https://host/bucket/prefix",
        "s3:host/bucket",
        "s3:host:9000/bucket/a@b",
        "s3://host/bucket",
        "s3:http://[::1]:9000/b",
    ),
    *("b2:bucket:prefix", "azure:container:/", "gs:bucket:/", "swift:container:/path", "rclone:remote:path/a@b"),
)


@pytest.mark.parametrize("address", SECRETS)
def test_a_secret_in_an_address_is_hidden_and_refused(address: str) -> None:
    assert holds_secret(address)
    assert masked(address) == SECRETS[address]
    with pytest.raises(UserError, match=r"plinth:backup\.repository has a secret in its address") as refused:
        preflight(parse({"target": "local", "backup": {"repository": address}}, source="x"))
    assert str(login_in(address)) not in str(refused.value)


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_one_is_shown_as_it_is_and_taken(address: str) -> None:
    assert not holds_secret(address)
    assert masked(address) == address
    preflight(parse({"target": "local", "backup": {"repository": address}}, source="x"))


@pytest.mark.parametrize("address", [*SECRETS, *PLAIN])
def test_the_chart_refuses_the_same(address: str) -> None:
    template = (ROOT / "charts" / "backup" / "templates" / "_backup.tpl").read_text()
    (pattern,) = re.findall(r'regexMatch "(\^[^"]+)"', template)
    # A backend that restic does not have is none of the chart's.
    assert bool(re.search(pattern, address)) is (holds_secret(address) and not address.startswith("https:"))


@given(st.text(alphabet="abc:/@,=?%", max_size=30))
def test_what_was_hidden_stays_so_and_nothing_else_changes(rest: str) -> None:
    for kind in ("", "s3:", "rest:https://", "sftp:", "rclone:", "b2:"):
        shown = masked(f"{kind}{rest}")
        assert masked(shown).count("***") == shown.count("***")
        if not holds_secret(f"{kind}{rest}"):
            assert shown == f"{kind}{rest}"


@given(
    st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs", "Cc"])),
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])),
)
def test_the_login_that_restic_is_given_is_hidden(user: str, password: str) -> None:
    login = {"RESTIC_REST_USERNAME": user, "RESTIC_REST_PASSWORD": password}
    assert masked(with_login("rest:https://host:8000/name", login)) == "rest:https://***@host:8000/name"
