"""`python -m plinth.targets.downloads TOOL DIRECTORY`: one file of a release archive that config/images.yaml pins.

Nothing that was only downloaded is run: the archive is hashed before it is opened, and the one member is written by
hand to a fresh file, which takes its place by a rename. A machine without internet is told so within seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import queue
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Thread

import httpx
from pydantic import Field, ValidationError

from plinth.errors import UserError
from plinth.printable import visible
from plinth.system import archives
from plinth.system.http_client import client_for
from plinth.system.strict_model import StrictModel
from plinth.system.yaml_files import read_yaml
from plinth.targets.images import PINS

MIRROR = "PLINTH_DOWNLOADS"
# The digest is of the bytes that the server keeps.
AS_IT_IS = {"accept-encoding": "identity"}
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Patience:
    """Seconds: for the answer (look-up, connection and redirects together), between two reads, and for the whole."""

    answer_s: float = 5
    stall_s: float = 15
    whole_s: float = 600


class PinnedArchive(StrictModel):
    """A version's archive for one platform, by its digest; ``archive`` where its name follows no pattern."""

    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    archive: str | None = None


class PinnedTool(StrictModel):
    """Where a tool's archives lie, and which file of one is the tool.

    ``tree`` is the directory of the archive that a tool needs whole, with the executable in it. ``published`` is where
    the vendor says the digests of a version, on another server than ``base``.
    """

    base: str = Field(alias="from")
    archive: str = ""
    member: str
    tree: str | None = None
    bytes_max: int = Field(1 << 30, gt=0)
    published: str | None = None
    platforms: Mapping[str, PinnedArchive]

    def archive_name(self, version: str) -> str:
        """The archive of a version for this machine, where its name follows the pattern."""
        system, _, machine = this_platform().partition("-")
        names = {"os": system, "go_machine": machine.replace("x64", "amd64")}
        return self.archive.format(version=version, platform=this_platform(), **names)

    def url(self, release: PinnedArchive, mirror: str | None) -> str:
        """Where the archive of a release lies; a mirror has all archives in one directory."""
        base = mirror or self.base.format(version=release.version)
        return f"{base.rstrip('/')}/{release.archive or self.archive_name(release.version)}"


def pinned(root: Path, tool: str) -> PinnedTool:
    """The pins of a tool; raises :class:`UserError`."""
    try:
        return PinnedTool.model_validate(read_yaml(root / PINS)["downloads"][tool])
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{PINS} names no download of {tool} ({error}); correct it.") from error


def release_of(tool: str, pins: PinnedTool) -> PinnedArchive:
    """The release that is pinned for this machine; raises :class:`UserError`."""
    pin = pins.platforms.get(this_platform())
    if pin is None:
        raise UserError(f"No digest of a {tool} for {this_platform()} is pinned, so it is not downloaded.", exit_code=1)
    return pin


def this_platform() -> str:
    """The machine as release archives call it, such as `linux-x64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{MACHINES.get(machine, machine)}"


def install(
    pins: PinnedTool, release: PinnedArchive, target: Path, mirror: str | None, patience: Patience = Patience()
) -> str:
    """Download, verify and unpack; the sentence that says what was installed. Raises :class:`UserError`.

    ``target`` becomes the tree of the tool, or the directory of its executable.
    """
    url = pins.url(release, mirror)
    with _scratch(target) as scratch:
        archive = scratch / "archive"
        _refuse_other(url, _download(url, archive, pins.bytes_max, patience), release.sha256)
        _place(archive, pins, release, scratch, target)
    return f"{release.version} installed from {url}, whose SHA-256 is {release.sha256}."


def install_file(pins: PinnedTool, release: PinnedArchive, target: Path, file: Path) -> str:
    """The same from an archive on this machine."""
    with _scratch(target) as scratch:
        archive = scratch / "archive"
        try:
            # What is hashed is what is opened, whoever writes the file meanwhile.
            shutil.copyfile(file, archive)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); name a release archive.") from error
        with archive.open("rb") as content:
            _refuse_other(str(file), hashlib.file_digest(content, "sha256").hexdigest(), release.sha256)
        _place(archive, pins, release, scratch, target)
    return f"{release.version} installed from {file}, whose SHA-256 is {release.sha256}."


def published_digest(pins: PinnedTool, version: str, patience: Patience = Patience()) -> PinnedArchive:
    """The digest that the vendor's record of a release has of its archive. Raises :class:`UserError`."""
    if pins.published is None:
        raise UserError(f"{PINS} names no record of releases.", exit_code=1)
    url, name = pins.published.format(version=version), pins.archive_name(version)
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record"
        _download(url, record, 16 << 20, patience)
        try:
            assets = json.loads(record.read_bytes())["assets"]
            digests = {asset["name"]: asset["digest"].removeprefix("sha256:") for asset in assets if asset["digest"]}
            return PinnedArchive(version=version, sha256=digests[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{url} names no SHA-256 of {name}.", exit_code=1) from error


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    # Beside the target: a directory of a plugin that lacks it passes for the plugin.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as scratch:
        yield Path(scratch)


def _refuse_other(source: str, digest: str, expected: str) -> None:
    if digest != expected:
        raise UserError(
            f"{source} has the SHA-256 {digest}, and {expected} was expected; it is not opened.", exit_code=1
        )


def _place(archive: Path, pins: PinnedTool, release: PinnedArchive, scratch: Path, target: Path) -> None:
    unpacked = scratch / "unpacked"
    try:
        with tarfile.open(archive, "r:gz") as members:
            if pins.tree is None:
                _unpack_member(members, pins.member, unpacked)
            else:
                archives.unpack(members, unpacked, _published_mode)
    except (tarfile.TarError, archives.UnsafeArchive, OSError, EOFError) as error:
        raise UserError(f"The archive cannot be unpacked ({error}).", exit_code=1) from error
    if pins.tree is None:
        target.mkdir(exist_ok=True)
        unpacked.replace(target / Path(pins.member).name)
        return
    tree = unpacked / pins.tree.format(version=release.version)
    if not (tree / pins.member).is_file():
        raise UserError(f"The archive has no plain file {pins.tree}/{pins.member}.", exit_code=1)
    for directory in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)
    tree.rename(target)


def _published_mode(member: tarfile.TarInfo) -> int:
    """A service runs and reads what is published, and writes none of it."""
    return 0o755 if member.mode & 0o100 else 0o644


def _download(url: str, to: Path, bytes_max: int, patience: Patience) -> str:
    """Write the file and answer its SHA-256."""
    deadline = time.monotonic() + patience.whole_s
    digest, size = hashlib.sha256(), 0
    with ExitStack() as stack:
        try:
            answer = _answered(url, stack, patience)
            if answer.status_code != 200:
                raise UserError(f"{url} answered {answer.status_code}.", exit_code=1)
            with to.open("xb") as file:
                for part in answer.iter_raw():
                    size += len(part)
                    if size > bytes_max or time.monotonic() > deadline:
                        raise UserError(f"{url} is too large, or comes too slowly; it was given up.", exit_code=1)
                    digest.update(part)
                    file.write(part)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(f"{url} cannot be downloaded ({error}).", exit_code=1) from error
    return digest.hexdigest()


def _answered(url: str, stack: ExitStack, patience: Patience) -> httpx.Response:
    """The head of the answer, in time: a look-up of a name has no time-out of its own, so it runs in a thread."""
    client = stack.enter_context(client_for(url, timeout=patience.stall_s, follow_redirects=True, headers=AS_IT_IS))
    outcome: queue.SimpleQueue[httpx.Response | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            outcome.put(client.send(client.build_request("GET", url), stream=True))
        except Exception as error:
            outcome.put(error)

    Thread(target=ask, daemon=True).start()
    with suppress(queue.Empty):
        answer = outcome.get(timeout=patience.answer_s)
        if isinstance(answer, Exception):
            raise answer
        stack.callback(answer.close)
        return answer
    raise UserError(f"{url} did not answer within {patience.answer_s:g} s.", exit_code=1)


def _unpack_member(members: tarfile.TarFile, name: str, target: Path) -> None:
    for member in members:
        if PurePosixPath(member.name) == PurePosixPath(name) and archives.is_plain(member):
            archives.parts(member)
            archives.copy(members, member, target, 0o755)
            return
    raise UserError(f"The archive has no plain file {name}.", exit_code=1)


def main() -> None:
    """Install the tool; 1 where that cannot be, with the reason."""
    tool, directory = sys.argv[1:]
    try:
        pins = pinned(Path.cwd(), tool)
        print(visible(install(pins, release_of(tool, pins), Path(directory), os.environ.get(MIRROR))))
    except UserError as error:
        sys.exit(visible(str(error)))


if __name__ == "__main__":
    main()
