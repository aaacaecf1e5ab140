"""Several commands on one environment at once, and one that is killed: what the engine needs stays whole."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

from plinth.deployment.automation import _made_passphrase, _write_stack_file
from plinth.paths import Home
from plinth.system.yaml_files import parse_yaml

SALT = "encryptionsalt: v1:abc\n"


def project(root: Path) -> Path:
    (root / "stacks").mkdir()
    keys = "".join(f"  plinth:k{number}: v\n" for number in range(200))
    (root / "stacks" / "Pulumi.t.yaml").write_text(f"config:\n  plinth:target: local\n{keys}")
    generated = root / "Pulumi.t.yaml"
    generated.write_text(SALT)
    return generated


def write(root: Path, times: int) -> None:
    for number in range(times):
        # A person edits it meanwhile, so that there is something to write.
        with (root / "stacks" / "Pulumi.t.yaml").open("a") as file:
            file.write(f"  plinth:{os.getpid()}-{number}: v\n")
        _write_stack_file(root, "t", root / "Pulumi.t.yaml")


def test_the_copy_of_the_settings_is_whole_and_keeps_its_salt(tmp_path: Path) -> None:
    generated = project(tmp_path)
    writers = [multiprocessing.Process(target=write, args=(tmp_path, 12)) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert "v1:abc" in generated.read_text()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert parse_yaml(generated.read_text())["encryptionsalt"] == "v1:abc"


def test_a_kill_leaves_the_copy_whole(tmp_path: Path) -> None:
    generated = project(tmp_path)
    for number in range(8):
        writer = multiprocessing.Process(target=write, args=(tmp_path, 1000))
        writer.start()
        time.sleep(0.02 + number / 50)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert parse_yaml(generated.read_text())["encryptionsalt"] == "v1:abc"
    (tmp_path / "stacks" / "Pulumi.t.yaml").write_text("config:\n  plinth:target: local\n")
    _write_stack_file(tmp_path, "t", generated)
    assert parse_yaml(generated.read_text()) == {"config": {"plinth:target": "local"}, "encryptionsalt": "v1:abc"}


def test_the_passphrase_is_made_once(tmp_path: Path) -> None:
    place = Home(tmp_path, tmp_path / "t")
    with multiprocessing.Pool(6) as pool:
        read = pool.starmap(passphrase, [(place,)] * 24)
    assert len(set(read)) == 1
    assert len(read[0]) > 30
    assert [path.name for path in tmp_path.iterdir()] == ["passphrase"]


def passphrase(place: Home) -> str:
    return _made_passphrase(place).read_text()
