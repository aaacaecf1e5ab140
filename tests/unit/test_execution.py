"""Output of commands elsewhere: frames of the Docker engine and lines, however they are cut on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plinth.system.streamed_command import Interruption, lines_of
from plinth.targets.docker.execution import frames


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    """The content in chunks of these sizes, and the rest."""
    chunks = []
    for size in sizes:
        chunks.append(content[:size])
        content = content[size:]
    return [*chunks, content]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=300))), st.lists(st.integers(0, 40)))
def test_frames_come_whole_however_the_connection_cuts_them(sent: list[tuple[bool, bytes]], sizes: list[int]) -> None:
    content = b"".join(bytes([1 + is_error, 0, 0, 0]) + len(part).to_bytes(4, "big") + part for is_error, part in sent)
    assert list(frames(cut(content, sizes))) == sent
    assert list(frames(cut(content[:-1], sizes))) == sent[: len(sent) - 1]


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"))), st.lists(st.integers(0, 9)))
def test_lines_come_whole_and_once(lines: list[str], sizes: list[int]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    assert list(lines_of(cut(content, sizes))) == lines
    assert list(lines_of(cut(content + b"last", sizes))) == [*lines, "last"]


def test_a_signal_is_the_exit_status_that_a_shell_gives() -> None:
    assert [Interruption(number).exit_code for number in (None, 2, 15)] == [None, 130, 143]
