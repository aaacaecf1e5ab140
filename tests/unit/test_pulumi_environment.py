"""What Pulumi reads of the user's environment: refused where it would go unseen, and where it would deploy twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plinth.deployment.pulumi_environment import (
    BACKEND_URL,
    PASSPHRASE,
    PASSPHRASE_FILE,
    forget_backend,
    local_backend,
    passphrase,
    record_backend,
    refuse_other_backend,
    refuse_overrides,
)
from plinth.errors import UserError
from plinth.paths import Home

OTHER = {BACKEND_URL: "s3://states/plinth"}


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home(tmp_path / ".plinth", tmp_path / ".plinth" / "t")


@pytest.mark.parametrize(
    "name",
    [
        "PULUMI_CONFIG",
        "PULUMI_CONFIG_SECRET_KEYS",
        "PULUMI_CONFIG_PLINTH__TIER",
        "PULUMI_CONFIG_PASSPHRASE_OF_ANOTHER",
        "PULUMI_OPTION_STACK",
        "PULUMI_OPTION_TARGET",
        "PULUMI_STACK",
        "PULUMI_SKIP_CHECKPOINTS",
        "PULUMI_CONTINUE_ON_ERROR",
    ],
)
def test_what_would_override_the_settings_is_refused_by_name(name: str) -> None:
    """F21: PULUMI_CONFIG in the environment overrode the settings file without a word."""
    with pytest.raises(UserError, match=f"^{name} would change .* unset {name}") as refused:
        refuse_overrides({"PATH": "/bin", name: "{}"})
    assert refused.value.exit_code == 2


def test_what_names_the_state_and_its_passphrase_is_no_override() -> None:
    refuse_overrides(
        dict.fromkeys((BACKEND_URL, PASSPHRASE, PASSPHRASE_FILE, "PULUMI_HOME", "PULUMI_ACCESS_TOKEN", "CONFIG"), "x")
    )


def test_the_passphrase_is_the_one_that_pulumi_takes(place: Home, tmp_path: Path) -> None:
    place.passphrase.parent.mkdir()
    place.passphrase.write_text(" of the clone\n")
    other = tmp_path / "other"
    other.write_text("\nof the file \n")
    assert passphrase(place, {}) == "of the clone"
    assert passphrase(place, {PASSPHRASE_FILE: str(other)}) == "of the file"
    assert passphrase(place, {PASSPHRASE_FILE: str(other), PASSPHRASE: " as it is "}) == " as it is "


EMPTY: dict[str, tuple[dict[str, str], str | bytes | None]] = {
    "an empty variable": ({PASSPHRASE: ""}, "x"),
    "an empty file": ({}, "\n"),
    "no file": ({}, None),
    "a file that is no text": ({}, b"\xff\xfe"),
    "a named file that is not there": ({PASSPHRASE_FILE: "/nowhere/passphrase"}, "x"),
}


@pytest.mark.parametrize(("variables", "content"), EMPTY.values(), ids=EMPTY)
def test_a_passphrase_that_is_none_is_a_sentence(
    place: Home, variables: dict[str, str], content: str | bytes | None
) -> None:
    place.passphrase.parent.mkdir()
    if content is not None:
        place.passphrase.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"is empty|cannot be read") as refused:
        passphrase(place, variables)
    assert next(iter(variables), str(place.passphrase)) in str(refused.value)


@pytest.mark.parametrize(
    ("deployed", "now"),
    [({}, OTHER), (OTHER, {}), (OTHER, {BACKEND_URL: "s3://states/other"}), (OTHER, {BACKEND_URL: "file:///srv/s"})],
)
def test_a_second_state_over_what_is_deployed_is_refused(
    place: Home, deployed: dict[str, str], now: dict[str, str]
) -> None:
    """F21: another PULUMI_BACKEND_URL deployed everything again, over the running stack."""
    refuse_other_backend(place, now)
    record_backend(place, deployed)
    refuse_other_backend(place, deployed)
    with pytest.raises(UserError, match=f"(un)?set {BACKEND_URL}.*`plinth down t`"):
        refuse_other_backend(place, now)
    forget_backend(place)
    refuse_other_backend(place, now)


@pytest.mark.parametrize("same", ["s3://states/plinth/", "s3://states/plinth"])
def test_the_same_state_written_otherwise_is_no_second(place: Home, same: str) -> None:
    record_backend(place, OTHER)
    refuse_other_backend(place, {BACKEND_URL: same})


def test_one_that_an_earlier_version_deployed_is_known_by_its_state(place: Home) -> None:
    state = place.backend / ".pulumi" / "stacks" / "plinth" / "t.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {"resources": [{"type": "a:b:C"}]}}}))
    with pytest.raises(UserError, match=f"unset {BACKEND_URL}"):
        refuse_other_backend(place, OTHER)
    state.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {}}}))
    refuse_other_backend(place, OTHER)


def test_a_login_in_the_address_is_neither_kept_nor_shown(place: Home) -> None:
    login = {BACKEND_URL: "https://ann:pa55word@states.test"}
    record_backend(place, login)
    written = (place.data / "state.json").read_text()
    with pytest.raises(UserError) as refused:
        refuse_other_backend(place, {})
    assert "pa55word" not in written + str(refused.value)


@pytest.mark.parametrize("name", ["a b", "a#b", "a%41b", "a?b", "ü"])
def test_the_address_of_the_local_state_names_its_directory_alone(tmp_path: Path, name: str) -> None:
    """F15: `#` began a fragment, `?` a query, and `%41` was an A."""
    url = local_backend(Home(tmp_path / name / ".plinth", tmp_path / name / ".plinth" / "t"))
    assert url.startswith("file:///")
    assert not set(" #?") & set(url)
    from urllib.parse import unquote, urlsplit

    assert unquote(urlsplit(url).path) == str(tmp_path / name / ".plinth" / "backend")
