"""What root's processes do to files, as strace saw it: found by tracing, not by a list of what we think they do."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from plinth.system.accounts import written_by_services

FORKS = ("clone", "clone3", "fork", "vfork")
BECOMES = ("setuid", "setreuid", "setresuid")
OPTIONS = ("-f", "-y", "--seccomp-bpf", "-s", "4096", "-e", "signal=none")
TRACE = f"trace=%file,{','.join((*FORKS, *BECOMES))}"
# All but those that only look; an open is one of them where it asks for it.
LOOKS = {
    "access", "chdir", "chroot", "execve", "execveat", "faccessat", "faccessat2", "fstatat64", "getcwd", "getxattr",
    "inotify_add_watch", "lgetxattr", "listxattr", "llistxattr", "lstat", "name_to_handle_at", "newfstatat", "quotactl",
    "readlink", "readlinkat", "stat", "statfs", "statx", "swapon", "uselib",
}  # fmt: skip
# By descriptors, which were opened by what is listed.
THROUGH_DESCRIPTORS = "/proc/self/"
Before = Mapping[Path, os.stat_result]
NOTHING: Before = {}

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="no strace: scripts/test installs it for root")
_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)(.*)$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_ARGUMENT = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_CWD = re.compile(r"AT_FDCWD<([^>]*)>")


@dataclass(frozen=True)
class Event:
    """A system call of a process on a path."""

    uid: int
    call: str
    path: Path
    writes: bool
    exclusive: bool
    done: bool
    line: str


def command(trace: Path, *argv: str) -> list[str]:
    """The command that runs another one and writes down what it and all that it starts do to files."""
    return ["strace", *OPTIONS, "-e", TRACE, "-o", str(trace), *argv]


def events(lines: Sequence[str]) -> list[Event]:
    """Every path that was named to the kernel, with who named it."""
    calls = list(_calls(lines))
    parents = {int(result): pid for pid, call, _, result, _ in calls if call in FORKS and result.isdigit()}
    uids: dict[int, int] = {}
    places: dict[int, str] = {}

    def uid(pid: int) -> int:
        if pid not in uids:
            uids[pid] = uid(parents[pid]) if pid in parents else 0
        return uids[pid]

    seen: list[Event] = []
    for pid, call, arguments, result, line in calls:
        who = uid(pid)
        if call in BECOMES and result == "0":
            given = arguments.split(", ")[-1 if call == "setuid" else 1]
            uids[pid] = who if given == "-1" else int(given)
            continue
        place = _CWD.search(arguments)
        if place:
            places[pid] = place[1]
        cwd = places.get(pid) or places.get(parents.get(pid, 0), "/")
        writes = call not in LOOKS and (
            not call.startswith("open") or bool(re.search(r"O_(WRONLY|RDWR|CREAT)", arguments))
        )
        exclusive = call.startswith("mkdir") or "O_EXCL" in arguments
        for directory, name in _ARGUMENT.findall(arguments):
            text = name.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
            if text:
                path = Path(os.path.normpath(os.path.join(directory or cwd, text)))  # noqa: PTH118 - as the kernel has it
                seen.append(Event(who, call, path, writes, exclusive, result != "-1", line))
    return seen


def statuses(place: Path) -> dict[Path, os.stat_result]:
    """What there is in a place now; later it may be gone."""
    return {path: path.lstat() for path in (place, *place.rglob("*"))}


def unsafe(seen: Sequence[Event], before: Before = NOTHING) -> list[str]:
    """What root wrote, made, moved, removed or gave away where a service's account chooses what is there."""
    exclusive = {event.path for event in seen if event.exclusive and event.done and event.uid == 0}
    return sorted(
        {
            f"{event.path}: {event.line}"
            for event in seen
            if event.uid == 0
            and event.writes
            and event.done
            and not str(event.path).startswith((THROUGH_DESCRIPTORS, "/dev/", "/proc/"))
            and (_chosen_by_services(event.path, exclusive, before) or _is_of_services(event, before))
        }
    )


def touched(seen: Sequence[Event], before: Before = NOTHING) -> set[Path]:
    """The paths that root so much as looked at where a service's account chooses what is there."""
    return {
        event.path
        for event in seen
        if event.uid == 0
        and not str(event.path).startswith(("/proc/", "/dev/", "/sys/"))
        and _chosen_by_services(event.path, set(), before)
    }


def _chosen_by_services(path: Path, exclusive: set[Path], before: Before) -> bool:
    """Whether a service's account can put something else in the place of a path, or of a directory above it."""
    below: Path = path
    for directory in path.parents:
        status = _status(directory, before)
        if status and _can_write(status):
            # In a directory such as /tmp each has what is its own, if that was not there before.
            entry = _status(below, before)
            own = entry is None or entry.st_uid == 0
            if not (status.st_mode & stat.S_ISVTX and own and (entry is not None or below in exclusive)):
                return True
        below = directory
    return False


def _is_of_services(event: Event, before: Before) -> bool:
    """Whether what is opened to be written, or handed over by its name, is a service's."""
    if not event.call.startswith(("open", "chmod", "fchmodat", "chown", "fchownat", "truncate")):
        return False
    status = _status(event.path, before)
    return status is not None and not stat.S_ISDIR(status.st_mode) and written_by_services(status)


def _can_write(status: os.stat_result) -> bool:
    return written_by_services(status) or bool(status.st_mode & stat.S_IWOTH)


def _status(path: Path, before: Before) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return before.get(path)


def _calls(lines: Sequence[str]) -> Iterator[tuple[int, str, str, str, str]]:
    """Process, call, arguments, result, and the whole line; what was interrupted is put together."""
    begun: dict[int, str] = {}
    for line in lines:
        matched = _LINE.match(line)
        if not matched:
            continue
        pid, text = int(matched[1]), matched[2]
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = _RESUMED.match(text)
        if resumed:
            text = begun.pop(pid, "") + resumed[2]
        called = _CALL.match(text)
        if called:
            yield pid, called[1], called[2], called[3], text
