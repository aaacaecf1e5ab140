"""What is made of Pulumi's words."""

from __future__ import annotations

import pytest

from plinth.engine import last_error


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Updating\n  error: update failed: rpc error: code = Unknown", "update failed: rpc error: code = Unknown"),
        (" code: 1\n stdout: \n stderr: error: incorrect passphrase", "incorrect passphrase"),
        ("error: the first\nerror: the last\n", "the last"),
        ("nothing that it calls one\nthe end\n", "the end"),
    ],
)
def test_the_last_error_is_told_whole(said: str, found: str) -> None:
    assert last_error(said) == found
