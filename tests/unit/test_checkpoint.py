"""Pulumi's state file, read without Pulumi: what it holds, what is left to Pulumi, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from plinth.deployment.checkpoint import (
    MASK,
    Checkpoint,
    Unsupported,
    WrongPassphrase,
    drop_damaged_attributes,
    read,
    state_file,
)
from plinth.errors import UserError

PASSPHRASE, SALT = "of the clone", b"8 bytes."
KEY = hashlib.pbkdf2_hmac("sha256", PASSPHRASE.encode(), SALT, 1_000_000, 32)
SIGNATURE = "4dabf18193072939515e22adb298388d"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text().filter(lambda k: k != SIGNATURE), inner),
    max_leaves=8,
)


def sealed(text: str) -> str:
    nonce = os.urandom(12)
    both = (nonce, AESGCM(KEY).encrypt(nonce, text.encode(), None))
    return ":".join(["v1", *(base64.b64encode(part).decode() for part in both)])


def secret(value: Any) -> dict[str, str]:
    return {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "ciphertext": sealed(json.dumps(value))}


PROVIDER = {
    "type": "passphrase",
    "state": {"salt": f"v1:{base64.b64encode(SALT).decode()}:{sealed('pulumi')}"},
}


def checkpoint(outputs: dict[str, Any], provider: dict[str, Any] | None = None) -> Checkpoint:
    resources = [{"type": "a:b:C", "outputs": {"not": "this"}}, {"type": "pulumi:pulumi:Stack", "outputs": outputs}]
    return Checkpoint({"secrets_providers": PROVIDER if provider is None else provider, "resources": resources})


def nobody() -> str:
    raise AssertionError("the passphrase was asked for")


@given(PLAIN, PLAIN)
def test_outputs_are_those_that_were_exported(plain: Any, hidden: Any) -> None:
    found = checkpoint({"plain": plain, "nested": {"list": [secret(hidden), plain]}})
    # Deriving the key takes a third of a second, each time.
    assert found.masked_outputs() == {"plain": plain, "nested": {"list": [MASK, plain]}}


def test_secrets_are_decrypted_at_any_depth() -> None:
    found = checkpoint({"q": {"key": secret("p@ss"), "all": [secret({"a": 1, "b": None})]}, "p": 1})
    assert found.outputs(lambda: PASSPHRASE) == {"q": {"key": "p@ss", "all": [{"a": 1, "b": None}]}, "p": 1}


def test_without_a_secret_nobody_is_asked_for_the_passphrase() -> None:
    assert checkpoint({"p": [1]}).outputs(nobody) == {"p": [1]}
    assert Checkpoint({}).outputs(nobody) == {}
    assert Checkpoint({"resources": None}).masked_outputs() == {}


@pytest.mark.parametrize("passphrase", ["", "of the clone ", "of another"])
def test_a_wrong_passphrase_is_found_before_anything_is_shown(passphrase: str) -> None:
    with pytest.raises(WrongPassphrase):
        checkpoint({"key": secret("p@ss")}).outputs(lambda: passphrase)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "an asset": ({"a": {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": "x"}}, None),
    "another provider": ({"a": secret("x")}, {"type": "cloud", "state": {}}),
    "no provider": ({"a": secret("x")}, {}),
    "another cipher": (
        {"a": secret("x")},
        {"type": "passphrase", "state": {"salt": PROVIDER["state"]["salt"].replace("v1:", "v2:", 1)}},
    ),
}


@pytest.mark.parametrize(("outputs", "provider"), OTHERS.values(), ids=OTHERS)
def test_what_it_does_not_understand_is_left_to_pulumi(
    outputs: dict[str, Any], provider: dict[str, Any] | None
) -> None:
    with pytest.raises(Unsupported):
        checkpoint(outputs, provider).outputs(lambda: PASSPHRASE)


WHOLE = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": []}}})
DAMAGED = {
    "cut off": WHOLE[:30],
    "empty": "",
    "zeros, as a full disk or a lost write leaves them": "\0" * 64,
    "of something else": "[]",
    "without a checkpoint": "{}",
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("backup", [WHOLE, WHOLE[:10], None], ids=["backup", "damaged backup", "no backup"])
def test_a_damaged_state_is_refused_with_the_way_back(tmp_path: Path, damaged: str | bytes, backup: str | None) -> None:
    """F21: Pulumi takes an empty one for no stack, and deploys another over what runs."""
    path = state_file(tmp_path, "plinth", "t")
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    if backup is not None:
        path.with_name("t.json.bak").write_text(backup)
    with pytest.raises(UserError) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert "plinth refresh t" in str(refused.value)
    assert (f"cp {path}.bak {path}" in str(refused.value)) == (backup == WHOLE)


@pytest.mark.parametrize("cut", range(3))
@pytest.mark.parametrize(
    "name", ["meta.yaml", "stacks/plinth/t.json", "stacks/plinth/t.json.bak", "history/plinth/t/t-1.json"]
)
def test_attributes_that_a_killed_run_cut_off_are_removed(tmp_path: Path, name: str, cut: int) -> None:
    attributes = b'{"user.content_type":"text/plain; charset=utf-8","md5":"YQ=="}\n'
    damaged, whole = tmp_path / ".pulumi" / f"{name}.attrs", tmp_path / ".pulumi" / "locks" / "1.json.attrs"
    for path, content in ((damaged, attributes[: cut * 20]), (whole, attributes), (damaged.with_suffix(""), b"")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert drop_damaged_attributes(tmp_path) == [damaged]
    assert (whole.read_bytes(), damaged.exists(), damaged.with_suffix("").exists()) == (attributes, False, True)
    assert drop_damaged_attributes(tmp_path) == []


@pytest.mark.parametrize("name", ["it's here", "a b"])
def test_the_way_back_can_be_pasted(tmp_path: Path, name: str) -> None:
    path = state_file(tmp_path / name, "plinth", "t")
    path.parent.mkdir(parents=True)
    path.write_text("")
    path.with_name("t.json.bak").write_text(WHOLE)
    with pytest.raises(UserError) as refused:
        read(path)
    command = str(refused.value).partition("before it: ")[2].partition(", then")[0]
    assert os.system(command) == 0
    assert read(path) == Checkpoint({"resources": []})


def test_another_version_or_form_is_left_to_pulumi(tmp_path: Path) -> None:
    path = state_file(tmp_path, "plinth", "t")
    assert read(path) is None
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": 4, "checkpoint": {}}))
    with pytest.raises(Unsupported):
        read(path)
    path.write_text(WHOLE)
    path.with_name("t.json.gz").touch()
    with pytest.raises(Unsupported):
        read(path)
