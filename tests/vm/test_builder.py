# SPDX-License-Identifier: Apache-2.0
"""Building a layer: what goes wrong is told and leaves nothing (test_layer: what arrives)."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from bugbox import config
from bugbox.events import Event, StepStarted, listening
from bugbox.host import proc
from bugbox.paths import Home
from bugbox.puzzle.definition import Puzzle, load
from bugbox.session import prepare
from bugbox.session.build_machine import Parts
from bugbox.session.builder import BuiltLayer, ensure_layer
from bugbox.session.drivers import choose
from bugbox.session.resident import Resident
from tests.conftest import FACTOR, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture
def layers(bugbox: Bugbox) -> Path:
    """A folder of layers of this test's own: it counts and removes them."""
    bugbox.home.layers.unlink()
    bugbox.home.layers.mkdir()
    return bugbox.home.layers


def small(bugbox: Bugbox, folder: Path, build: str, more: str = "") -> Path:
    bugbox("new", "small", cwd=folder)
    puzzle = folder / "small"
    (puzzle / "build.sh").write_text(f"#!/bin/sh\n{build}\n")
    with (puzzle / "puzzle.yaml").open("a") as manifest:
        manifest.write(more)
    return puzzle


def manifests(layers: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in layers.glob("*/manifest.json")]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("echo the reason; exit 3", ("build.sh", "3", "the reason")),
        ("sleep 1000", ("build.sh", "did not end within 10s")),
        (
            "dd if=/dev/zero of=/fill bs=1M",
            ("filled the disk of 1100 MiB", "No space left"),
        ),
    ],
    ids=["fails", "never ends", "fills the disk"],
)
def test_a_bad_build_is_told_and_leaves_nothing(
    bugbox: Bugbox, layers: Path, tmp_path: Path, build: str, words: tuple[str, ...]
) -> None:
    more = "machine: {disk: 1100MiB}\n" + ("build: {timeout: 10s}\n" if "sleep" in build else "")
    puzzle = small(bugbox, tmp_path, build, more)
    done = bugbox("build", str(puzzle), ok=(1,), timeout=300)
    for word in words:
        assert word in done.stderr.decode()
    assert list(layers.iterdir()) == []
    assert list(bugbox.home.sessions.iterdir()) == []


def test_two_builds_at_once_build_once(bugbox: Bugbox, layers: Path, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, "sleep 2; echo here I build; date +%N >/srv/when")
    both = [bugbox.popen("build", str(puzzle)) for _ in range(2)]
    said = []
    for one in both:
        _, err = one.communicate(timeout=120 * FACTOR)
        assert one.returncode == 0, err
        said.append(err)
    assert sorted("here I build" in err for err in said) == [False, True], said
    assert sorted("waiting for it" in err for err in said) == [False, True], said
    assert len(manifests(layers)) == 1


def test_a_machine_that_stood_by_makes_the_same_layer(
    built: Home, bugbox: Bugbox, layers: Path, tmp_path: Path
) -> None:
    """And nothing of the rehearsal, or of who it is, gets into it."""
    lines = (
        "set -e; useradd --system keeper; install -D -o keeper /etc/issue /srv/a/b; rm /etc/motd",
        "rm -r /etc/skel; touch -d '2001-02-03' /srv/a; touch /srv/new; systemctl enable ssh",
        "grep -q rehearsal /etc/passwd && exit 9; [ ! -e /srv/rehearsal ] || exit 9",
    )
    puzzle = load(small(bugbox, tmp_path, "\n".join(lines)))
    settings = config.load(built)
    parts = replace(prepare.layer_parts(built, settings, "debian-12"), home=bugbox.home)
    resident = Resident()
    digests = []
    try:
        resident.fill(parts, puzzle.manifest.machine.disk)
        for _ in range(2):
            fresh = replace(parts, driver=choose(bugbox.home, settings))
            layer = anyio.run(_built_with, fresh, puzzle, resident)
            assert [path for path in layers.iterdir() if path.is_dir()] == [layer.folder]
            assert list(bugbox.home.sessions.iterdir()) == [], "it serves one build"
            proc.run(["qemu-img", "check", layer.disk], timeout=60)
            digests.append(layer.tar_sha256)
            shutil.rmtree(layer.folder)
    finally:
        resident.close()
    assert digests[0] == digests[1], "the second was made by a machine that was booted for it"


async def _built_with(parts: Parts, puzzle: Puzzle, resident: Resident) -> BuiltLayer:
    """Build, and see which of the two kinds of machine does it."""
    said: list[str] = []

    def heard(event: Event) -> None:
        said.extend([event.title] if isinstance(event, StepStarted) else [])

    stands_by = resident.stands_by
    with listening(heard):
        layer = await ensure_layer(
            parts.home,
            parts.settings,
            puzzle,
            parts.image,
            parts.kernel,
            parts.initrd,
            parts.driver,
            resident=resident,
        )
    assert ("Start the build machine" in said) is not stands_by
    return layer


def test_ctrl_c_takes_everything_back(bugbox: Bugbox, layers: Path, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, "echo now; sleep 60")
    building = bugbox.popen("build", str(puzzle))
    assert building.stderr
    for line in building.stderr:
        if "| now" in line:
            break
    machines = bugbox.machines()
    assert len(machines) == 1, machines
    building.send_signal(signal.SIGINT)
    _, err = building.communicate(timeout=60 * FACTOR)
    assert building.returncode == 130, err
    assert not Path(f"/proc/{machines[0]}").exists(), "the build machine still runs"
    assert list(layers.iterdir()) == [], "a half-built layer is left"
    assert not [p for p in bugbox.home.tmp.iterdir() if p.is_dir()], "a workspace is left"
    assert list(bugbox.home.sessions.iterdir()) == [], "a record is left"
