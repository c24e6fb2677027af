# SPDX-License-Identifier: Apache-2.0
"""The docker builder, on a real engine: the same layers as a build machine's, and nothing left."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from bugbox.errors import HostError
from bugbox.image import store
from bugbox.image.docker import Engine
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import load
from bugbox.session.container import built_in_container
from bugbox.storage import layer_file
from bugbox.storage.archive import members
from tests.conftest import CATALOGUE, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

BUILT = sorted(path.parent.name for path in shipped_puzzles().glob("*/build.sh"))


def containers(engine: str) -> list[str]:
    done = subprocess.run(
        ["docker", "ps", "--all", "--format", "{{.Names}}"],
        env={**os.environ, "DOCKER_HOST": engine},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("name", BUILT)
def test_every_puzzle_is_the_same_as_from_a_machine(
    built: Home, bugbox: Bugbox, engine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in CATALOGUE and not os.environ.get("BUGBOX_TEST_ALL"):
        pytest.skip("only with BUGBOX_TEST_ALL=1: three puzzles are enough for every day")
    (made,) = bugbox.json("build", name, timeout=300)
    in_machine, _ = layer_file.verify(Path(made["folder"]) / "puzzle.tar.zst")
    monkeypatch.setenv("DOCKER_HOST", engine)
    puzzle = load(shipped_puzzles() / name)
    image = store.find_base(built, puzzle.base)
    assert image is not None
    with built_in_container(bugbox.home, puzzle, image) as made_here:
        in_container, _ = layer_file.verify(made_here.file)
    assert in_container == in_machine
    assert containers(engine) == []


WISHES = """\
network: {hosts: {db.internal: 10.0.2.100}}
boot: {units: [ssh, user-manager, sysstat]}
user: {shell: /bin/dash, sudo: none}
build: {inputs: [src], keep: [/var/lib/apt/lists]}
machine: {disks: [{name: spool, size: 1MiB, fs: ext4, mount: /var/spool/app}]}
"""


@pytest.mark.skipif(
    not os.environ.get("BUGBOX_TEST_ALL"), reason="BUGBOX_TEST_ALL=1: two builds more"
)
def test_what_a_manifest_asks_for_is_the_same_too(
    built: Home, bugbox: Bugbox, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugbox("new", "small", cwd=tmp_path)
    folder = tmp_path / "small"
    text = (folder / "puzzle.yaml").read_text()
    (folder / "puzzle.yaml").write_text(text + WISHES)
    (folder / "src").mkdir()
    (folder / "src/a").write_text("a")
    with (folder / "build.sh").open("a") as script:
        script.write("\nmkdir -p /var/lib/apt/lists; cp src/a /var/lib/apt/lists\n")
    (made,) = bugbox.json("build", str(folder), timeout=300)
    in_machine, entries = layer_file.verify(Path(made["folder"]) / "puzzle.tar.zst")
    names = {entry.name for entry in entries}
    assert {"etc/systemd/system/.wh.user@.service", "var/lib/apt/lists/a"} <= names
    monkeypatch.setenv("DOCKER_HOST", engine)
    puzzle = load(folder)
    image = store.find_base(built, puzzle.base)
    assert image is not None
    with built_in_container(bugbox.home, puzzle, image) as made_here:
        in_container, _ = layer_file.verify(made_here.file)
    assert in_container == in_machine


def small(bugbox: Bugbox, folder: Path, build: str) -> Path:
    bugbox.home.layers.unlink()
    bugbox("new", "small", cwd=folder)
    (folder / "small" / "build.sh").write_text(f"#!/bin/sh\n{build}\n")
    return folder / "small"


def test_a_layer_of_docker_is_in_the_machine(bugbox: Bugbox, engine: str, tmp_path: Path) -> None:
    bugbox.env["DOCKER_HOST"] = engine
    lines = (
        "echo 10.9.8.7 friend >>/etc/hosts; sed -i s/bugbox/other/ /etc/hostname",
        "systemctl enable ssh >/dev/null 2>&1; sleep 1000 & mknod /srv/null c 1 3",
        "! mount -t tmpfs none /mnt 2>/dev/null",
    )
    puzzle = small(bugbox, tmp_path, "\n".join(lines))
    (puzzle / "ready.sh").write_text("#!/bin/sh\nexit 0\n")
    bugbox("build", str(puzzle), "--builder", "docker", timeout=300)
    assert containers(engine) == []
    id = bugbox.start(str(puzzle), "--no-build")
    # Its hostname is the session's own by now; the layer has what build.sh made of it.
    look = "grep friend /etc/hosts; ls -a / | grep -e docker -e bugbox -e puzzle"
    assert bugbox.root(id, look, ok=(1,)) == "10.9.8.7 friend\n"
    (layer,) = bugbox.home.layers.glob("*/puzzle.tar.zst")
    with layer_file.opened(layer) as tar:
        seen = {entry.name: b"".join(data) for entry, data in members(tar)}
    assert seen["etc/hostname"] == b"other\n" and "etc/resolv.conf" not in seen


def test_a_failing_build_is_told_and_leaves_nothing(
    bugbox: Bugbox, engine: str, tmp_path: Path
) -> None:
    bugbox.env["DOCKER_HOST"] = engine
    puzzle = small(bugbox, tmp_path, "echo the reason; exit 3")
    done = bugbox("build", str(puzzle), "--builder", "docker", ok=(1,), timeout=300)
    assert b"ended with status 3" in done.stderr and b"the reason" in done.stderr
    assert containers(engine) == []
    assert list(bugbox.home.sessions.iterdir()) == []


def test_kill_9_leaves_no_container_after_gc(bugbox: Bugbox, engine: str, tmp_path: Path) -> None:
    bugbox.env["DOCKER_HOST"] = engine
    puzzle = small(bugbox, tmp_path, "echo now; sleep 1000")
    building = bugbox.popen("build", str(puzzle), "--builder", "docker")
    assert building.stderr
    for line in building.stderr:
        if "| now" in line:
            break
    assert len(containers(engine)) == 1
    building.send_signal(signal.SIGKILL)
    building.communicate(timeout=60)
    del bugbox.env["DOCKER_HOST"]  # the record knows which engine it was
    bugbox("gc")
    assert containers(engine) == []
    assert list(bugbox.home.sessions.iterdir()) == []


def test_gc_goes_on_where_the_engine_is_gone(bugbox: Bugbox, tmp_path: Path) -> None:
    folder = bugbox.home.sessions / "build-x-abcd"
    folder.mkdir(parents=True)
    spec = {"engine": {"DOCKER_HOST": f"unix://{tmp_path}/nobody"}}
    record = {"id": folder.name, "format": 1, "phase": "making", "puzzle": "x", "spec": spec}
    (folder / "record.json").write_text(json.dumps({**record, "holds": ["container"]}))
    bugbox("gc")
    assert folder.is_dir(), "forgotten while the container may still be there"
    (folder / "record.json").write_text(json.dumps(record))


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no container engine answers"):
        Engine(env={"DOCKER_HOST": f"unix://{tmp_path}/nobody"}).require()
